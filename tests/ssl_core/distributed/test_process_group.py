"""Distributed training: two processes with half a batch each have the gradients and buffers of one with all of it.

Losses of global batches are also compared with lightly's, except Barlow Twins: there each process normalises by its own
half, and the sum of the correlations over processes has no gradient.
"""

import socket

import pytest
import torch
import torch.distributed as dist
from torch import nn

import ssl_core.models.torchvision_ops  # noqa: F401 - lightly imports torchvision

# isort: split
from lightly import loss as lightly

from ssl_core import config
from ssl_core.data.label_budget import UNLABELLED
from ssl_core.device import Device
from ssl_core.distributed import sync_batch_norm
from ssl_core.distributed.collectives import gather, local_slice
from ssl_core.methods import METHODS, RunPosition, losses
from ssl_core.methods.distillation import Distillation
from ssl_core.models import backbones
from ssl_core.training.resolve import resolve
from tests.ssl_core.toys import build_method

RANKS = 2
OWN = {"dino": {"prototypes": 12}, "moco_v2": {"queue": 20}}
VARIANTS = {name: {} for name in METHODS} | {
    "simclr, other views alone": {"same_view_negatives": False},
    "simclr, decoupled": {"decoupled": True},
    "simclr, other views alone, decoupled, in tiles": {"same_view_negatives": False, "decoupled": True},
    "simclr, in tiles": {},
    "moco_v3, in tiles": {},
    "simsiam, four views": {},
    "dino, small views": {},
}
# The similarities of a process: its own rows of the 8 images, in both views or in one, and the columns of all.
OWN_ROWS = {"simclr": (8, 16), "simclr, decoupled": (8, 16), "moco_v3": (4, 8)}
SEVERAL_VIEWS = {"simsiam, four views": {"views": {"num_views": 4}}}
WEIGHTS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
GLOBAL_LOSSES = {  # ours, of all rows, and lightly's, of a process's rows
    "nt_xent": (
        lambda a, b: losses.nt_xent(gather(a), gather(b), temperature=0.2),
        lambda: lightly.NTXentLoss(temperature=0.2, gather_distributed=True),
    ),
    "nt_xent, own rows": (
        lambda a, b: losses.nt_xent(gather(a), gather(b), temperature=0.2, images=local_slice(len(a))),
        lambda: lightly.NTXentLoss(temperature=0.2, gather_distributed=True),
    ),
    "vicreg": (
        lambda a, b: losses.vicreg(gather(a), gather(b), **WEIGHTS),
        lambda: lightly.VICRegLoss(lambda_param=25.0, mu_param=25.0, nu_param=1.0, gather_distributed=True),
    ),
}
REPORT = {"splits": {"train": {"images": 64}}, "sizes": [{"width": 8, "height": 8, "images": 64}]}
CPU = torch.device("cpu")
SHAPE = config.Backbone(
    name="resnet10", width=0.125, stem="cifar", selective_kernel=False, layout="torchvision", zero_init_residual=False
)
LABELS = torch.tensor(
    [0, 1, UNLABELLED, 2, UNLABELLED, UNLABELLED, UNLABELLED, 1]
)  # three in the first half, one in the second


def build(variant):
    shape, name = {"name": "resnet10", "width": 0.125, "stem": "cifar"}, variant.split(",")[0]
    method = {"name": name, "projector": [12, 6], **OWN.get(name, {}), **VARIANTS[variant]}
    asked = config.parse({"method": method, "backbone": shape, "batch_size": 16, **SEVERAL_VIEWS.get(variant, {})})
    return build_method(resolve(asked, REPORT, Device("cpu", gains_from_bf16=False)), 0).double().train()


def views(step, variant=""):
    generator = torch.Generator().manual_seed(step)
    sides = {"simsiam, four views": (8, 8, 8, 8), "dino, small views": (8, 8, 6, 6)}.get(variant, (8, 8))
    return [torch.rand(8, 3, side, side, generator=generator, dtype=torch.float64) for side in sides]


def train(network, variant, part=slice(None)):
    """Train two steps on a part of each batch; return the losses, the gradients of the second, and the state."""
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.05)
    method = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    step_losses = []
    for step in range(2):
        optimizer.zero_grad()
        loss = network([view[part] for view in views(step, variant)]).loss
        loss.backward()
        step_losses.append(loss.detach())
        if step == 0:
            optimizer.step()
        method.after_step(RunPosition(step + 1, total_steps=4, steps_per_epoch=2))
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    return torch.stack(step_losses), gradients, method.state_dict()


def student():
    torch.manual_seed(0)
    network = backbones.build(SHAPE)
    teacher = lambda view: view.mean((2, 3)) * 5  # noqa: E731 - any callable is a teacher
    return Distillation(config.Distill(label_weight=0.5), network, 3, teacher).double().train()


def distill(network, part=slice(None)):
    """Return the loss and the gradients of a partly labelled batch."""
    loss = network([views(0)[0][part]], LABELS[part]).loss
    loss.backward()
    return loss.detach(), [p.grad for p in network.parameters()]


def run_rank(rank, port, folder):
    """Run one of the two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    found = {}
    for name in VARIANTS:
        method = sync_batch_norm.convert(build(name), CPU)
        network = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
        losses.MOST_DENSE_ROWS, shapes = 0 if "in tiles" in name else 4096, set()
        keep = lambda tensor, found=shapes: found.add(tuple(tensor.shape)) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, gradients, state = train(network, name, slice(4 * rank, 4 * rank + 4))
        dist.all_reduce(loss)
        found[name], found[f"{name}: shapes"] = (loss / RANKS, gradients, state), shapes
    network = nn.parallel.DistributedDataParallel(sync_batch_norm.convert(student(), CPU), broadcast_buffers=False)
    loss, gradients = distill(network, slice(4 * rank, 4 * rank + 4))
    dist.all_reduce(loss)
    found["distill"] = loss / RANKS, gradients
    for name, (ours, theirs) in GLOBAL_LOSSES.items():
        found[f"lightly: {name}"] = (
            compute_global_loss(ours, rank),
            compute_global_loss(theirs(), rank),
        )
    rows = torch.arange(6.0, dtype=torch.float64).view(3, 2).add(rank * 10).requires_grad_()
    losses.nt_xent(*gather(rows).chunk(2), temperature=0.5).backward()
    found["gathered"] = gather(rows.detach()), rows.grad
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def compute_global_loss(loss, rank):
    """Return the mean over processes of the losses of half the rows of two views each, and this half's gradient."""
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    mine = [rows[4 * rank : 4 * rank + 4].clone().requires_grad_() for rows in whole]
    value = loss(*mine)
    value.backward()
    dist.all_reduce(value.detach_())
    return value / RANKS, [rows.grad for rows in mine]


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """The results of the two processes for every method."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(run_rank, (port, folder), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_have_the_gradients_of_one_on_the_global_batch(name, halves):
    loss, gradients, state = train(build(name), name)
    for found in halves:
        torch.testing.assert_close(found[name][0], loss, rtol=1e-8, atol=1e-8)
        for mine, whole in zip(found[name][1], gradients, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-8)
        assert found[name][2].keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(found[name][2][key], value, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", OWN_ROWS)
def test_each_process_computes_the_similarities_of_its_own_images_alone(name, halves):
    rows, columns = OWN_ROWS[name]
    for found in halves:
        shapes = found[f"{name}: shapes"]
        assert (rows, columns) in shapes
        assert (columns, columns) not in shapes


@pytest.mark.parametrize("name", GLOBAL_LOSSES)
def test_the_loss_of_two_processes_equals_lightlys(name, halves):
    for found in halves:
        ours, theirs = found[f"lightly: {name}"]
        torch.testing.assert_close(ours, theirs)


def test_labels_have_equal_weight_on_every_process(halves):
    loss, gradients = distill(student())
    for found in halves:
        torch.testing.assert_close(found["distill"][0], loss)
        torch.testing.assert_close(found["distill"][1], gradients, rtol=1e-5, atol=1e-8)


def test_gathered_rows_are_ordered_by_rank_and_gradients_are_summed(halves):
    whole = torch.cat([torch.arange(6.0, dtype=torch.float64).view(3, 2).add(rank * 10) for rank in range(RANKS)])
    joined = whole.clone().requires_grad_()
    losses.nt_xent(*joined.chunk(2), temperature=0.5).backward()
    for rank, found in enumerate(halves):
        rows, gradient = found["gathered"]
        assert torch.equal(rows, whole)
        # Both computed the loss of the global batch, so each row's gradient is summed twice.
        torch.testing.assert_close(gradient, RANKS * joined.grad[3 * rank : 3 * rank + 3])

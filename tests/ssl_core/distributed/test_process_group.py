"""Several processes: two with half a batch each give the gradients, and the buffers, of one with all of it.

Losses of joined batches are also held to lightly's, whose Barlow Twins is another one: each process normalises by its
own half, and the sum over processes of the correlations has no gradient.
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
from ssl_core.data.label_budget import HIDDEN
from ssl_core.device import Device
from ssl_core.distributed import sync_batch_norm
from ssl_core.distributed.collectives import gather
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
    "simsiam, four views": {},
    "dino, small views": {},
}
SEVERAL_VIEWS = {"simsiam, four views": {"views": {"num_views": 4}}}
WEIGHTS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
JOINED = {  # ours, of all rows; lightly's, of a process's
    "nt_xent": (
        lambda a, b: losses.nt_xent(a, b, temperature=0.2),
        lambda: lightly.NTXentLoss(temperature=0.2, gather_distributed=True),
    ),
    "vicreg": (
        lambda a, b: losses.vicreg(a, b, **WEIGHTS),
        lambda: lightly.VICRegLoss(lambda_param=25.0, mu_param=25.0, nu_param=1.0, gather_distributed=True),
    ),
}
REPORT = {"splits": {"train": {"images": 64}}, "sizes": [{"width": 8, "height": 8, "images": 64}]}
CPU = torch.device("cpu")
SHAPE = config.Backbone(
    name="resnet10", width=0.125, stem="cifar", selective_kernel=False, layout="torchvision", zero_init_residual=False
)
LABELS = torch.tensor([0, 1, HIDDEN, 2, HIDDEN, HIDDEN, HIDDEN, 1])  # three in the first half, one in the second


def build(variant):
    shape, name = {"name": "resnet10", "width": 0.125, "stem": "cifar"}, variant.split(",")[0]
    method = {"name": name, "projector": [12, 6], **OWN.get(name, {}), **VARIANTS[variant]}
    asked = config.parse({"method": method, "backbone": shape, "batch_size": 16, **SEVERAL_VIEWS.get(variant, {})})
    return build_method(resolve(asked, REPORT, Device("cpu", gains_from_bf16=False)), 0).double().train()


def views(step, variant=""):
    generator = torch.Generator().manual_seed(step)
    sides = {"simsiam, four views": (8, 8, 8, 8), "dino, small views": (8, 8, 6, 6)}.get(variant, (8, 8))
    return [torch.rand(8, 3, side, side, generator=generator, dtype=torch.float64) for side in sides]


def learn(network, variant, part=slice(None)):
    """Two steps on a part of each batch; return the losses, the gradients of the second, and the state."""
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.05)
    method = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    told = []
    for step in range(2):
        optimizer.zero_grad()
        loss = network([view[part] for view in views(step, variant)]).loss
        loss.backward()
        told.append(loss.detach())
        if step == 0:
            optimizer.step()
        method.after_step(RunPosition(step + 1, total_steps=4, steps_per_epoch=2))
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    return torch.stack(told), gradients, method.state_dict()


def student():
    torch.manual_seed(0)
    network = backbones.build(SHAPE)
    teacher = lambda view: view.mean((2, 3)) * 5  # noqa: E731 - a callable is all that it has to be
    return Distillation(config.Distill(label_weight=0.5), network, 3, teacher).double().train()


def taught(network, part=slice(None)):
    """The loss and the gradients of a batch of which some labels are told."""
    loss = network([views(0)[0][part]], LABELS[part]).loss
    loss.backward()
    return loss.detach(), [p.grad for p in network.parameters()]


def half(rank, port, folder):
    """What one of the two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    found = {}
    for name in VARIANTS:
        method = sync_batch_norm.convert(build(name), CPU)
        network = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
        told, gradients, state = learn(network, name, slice(4 * rank, 4 * rank + 4))
        dist.all_reduce(told)
        found[name] = told / RANKS, gradients, state
    network = nn.parallel.DistributedDataParallel(sync_batch_norm.convert(student(), CPU), broadcast_buffers=False)
    loss, gradients = taught(network, slice(4 * rank, 4 * rank + 4))
    dist.all_reduce(loss)
    found["distill"] = loss / RANKS, gradients
    for name, (ours, theirs) in JOINED.items():
        found[f"lightly: {name}"] = (
            joined(lambda a, b, ours=ours: ours(gather(a), gather(b)), rank),
            joined(theirs(), rank),
        )
    rows = torch.arange(6.0, dtype=torch.float64).view(3, 2).add(rank * 10).requires_grad_()
    losses.nt_xent(*gather(rows).chunk(2), temperature=0.5).backward()
    found["gathered"] = gather(rows.detach()), rows.grad
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def joined(loss, rank):
    """The mean over the processes of the losses of their halves of two views' embeddings, and this half's gradient."""
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    mine = [rows[4 * rank : 4 * rank + 4].clone().requires_grad_() for rows in whole]
    value = loss(*mine)
    value.backward()
    dist.all_reduce(value.detach_())
    return value / RANKS, [rows.grad for rows in mine]


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """What the two processes found for every method."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(half, (port, folder), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_learn_what_one_learns_of_the_joined_batch(name, halves):
    told, gradients, state = learn(build(name), name)
    for found in halves:
        torch.testing.assert_close(found[name][0], told, rtol=1e-8, atol=1e-8)
        for mine, whole in zip(found[name][1], gradients, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-8)
        assert found[name][2].keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(found[name][2][key], value, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", JOINED)
def test_the_loss_of_two_processes_is_lightlys(name, halves):
    for found in halves:
        ours, theirs = found[f"lightly: {name}"]
        torch.testing.assert_close(ours, theirs)


def test_labels_that_are_told_weigh_alike_whichever_process_has_them(halves):
    loss, gradients = taught(student())
    for found in halves:
        torch.testing.assert_close(found["distill"][0], loss)
        torch.testing.assert_close(found["distill"][1], gradients, rtol=1e-5, atol=1e-8)


def test_gathered_rows_are_in_the_order_of_the_ranks_and_gradients_are_summed(halves):
    whole = torch.cat([torch.arange(6.0, dtype=torch.float64).view(3, 2).add(rank * 10) for rank in range(RANKS)])
    joined = whole.clone().requires_grad_()
    losses.nt_xent(*joined.chunk(2), temperature=0.5).backward()
    for rank, found in enumerate(halves):
        rows, gradient = found["gathered"]
        assert torch.equal(rows, whole)
        # Both computed the loss of the joined batch, so each row's gradient has come twice.
        torch.testing.assert_close(gradient, RANKS * joined.grad[3 * rank : 3 * rank + 3])

"""Several processes: two with half a batch each give the gradients, and the buffers, of one with all of it."""

import socket

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ssl_core import backbones, config, joint_norm, losses, methods
from ssl_core.distillation import Distillation
from ssl_core.distributed import gather
from ssl_core.machine import Machine
from ssl_core.methods import METHODS, Moment
from ssl_core.resolve import resolve
from ssl_core.teaching import HIDDEN

RANKS = 2
OWN = {"dino": {"prototypes": 12}, "moco_v2": {"queue": 20}}
REPORT = {"splits": {"train": {"images": 64}}, "sizes": [{"width": 8, "height": 8, "images": 64}]}
CPU = torch.device("cpu")
SHAPE = config.Backbone(
    name="resnet10", width=0.125, stem="cifar", selective_kernel=False, layout="torchvision", zero_init_residual=False
)
LABELS = torch.tensor([0, 1, HIDDEN, 2, HIDDEN, HIDDEN, HIDDEN, 1])  # three in the first half, one in the second


def build(name):
    shape = {"name": "resnet10", "width": 0.125, "stem": "cifar"}
    method = {"name": name, "projector": [12, 6], **OWN.get(name, {})}
    asked = config.parse({"method": method, "backbone": shape, "batch_size": 16})
    return methods.build(resolve(asked, REPORT, Machine("cpu", gains_from_bf16=False)), 0).double().train()


def views(step):
    generator = torch.Generator().manual_seed(step)
    return [torch.rand(8, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2)]


def learn(network, part=slice(None)):
    """Two steps on a part of each batch; return the losses, the gradients of the second, and the state."""
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.05)
    method = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    told = []
    for step in range(2):
        optimizer.zero_grad()
        loss = network([view[part] for view in views(step)]).loss
        loss.backward()
        told.append(loss.detach())
        if step == 0:
            optimizer.step()
        method.after_step(Moment(step + 1, total_steps=4, steps_per_epoch=2))
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
    for name in METHODS:
        method = joint_norm.join(build(name), CPU)
        network = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
        told, gradients, state = learn(network, slice(4 * rank, 4 * rank + 4))
        dist.all_reduce(told)
        found[name] = told / RANKS, gradients, state
    network = nn.parallel.DistributedDataParallel(joint_norm.join(student(), CPU), broadcast_buffers=False)
    loss, gradients = taught(network, slice(4 * rank, 4 * rank + 4))
    dist.all_reduce(loss)
    found["distill"] = loss / RANKS, gradients
    rows = torch.arange(6.0, dtype=torch.float64).view(3, 2).add(rank * 10).requires_grad_()
    losses.nt_xent(*gather(rows).chunk(2), temperature=0.5).backward()
    found["gathered"] = gather(rows.detach()), rows.grad
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """What the two processes found for every method."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(half, (port, folder), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_learn_what_one_learns_of_the_joined_batch(name, halves):
    told, gradients, state = learn(build(name))
    for found in halves:
        torch.testing.assert_close(found[name][0], told, rtol=1e-8, atol=1e-8)
        for mine, whole in zip(found[name][1], gradients, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-8)
        assert found[name][2].keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(found[name][2][key], value, rtol=1e-5, atol=1e-8)


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

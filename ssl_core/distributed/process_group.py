"""Several processes as one: what a method needs of the others' batches. With one process everything is as it is.

Gathering sums the gradients of all processes on the way back. As each computes the loss of the joined batch, and their
gradients are then averaged, W processes give exactly the gradient of one with the joined batch.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_core.distributed import sync_batch_norm
from ssl_core.distributed.collectives import world_size
from ssl_core.errors import ConfigUnfit

_RANK = "LOCAL_RANK"  # of torchrun's
TIMEOUT = timedelta(hours=2)  # of the others while the first process evaluates or waits for room on a disk


def launch(devices: int, device: str) -> None:
    """Become torchrun, which starts this process's command as often as there are devices; return if it has done so.

    With one device, or fewer than are asked for, there is nothing to start. device: as the config has it.
    """
    if devices == 1 or is_launched() or devices > count_devices(device):
        return
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    os.execv(sys.executable, [*torchrun, "-m", "ssl_core", *sys.argv[1:]])


def count_devices(device: str) -> int:
    """Return how many processes this machine has a GPU for or, on a CPU, a processor."""
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_launched() -> bool:
    """Whether torchrun has started this process as one of several."""
    return _RANK in os.environ


def is_follower() -> bool:
    """Whether it is not the first of them."""
    return os.environ.get("RANK", "0") != "0"


@contextmanager
def process_group(devices: int, device: str) -> Iterator[None]:
    """Take part, for the block, in what `launch` has started. Raises ConfigUnfit without so many devices."""
    if devices == 1:
        yield
        return
    if devices > (most := count_devices(device)):
        what = "GPUs" if device == "cuda" else "processors"
        raise ConfigUnfit(f"The config asks for {devices} devices; of {what} this machine has {most}.")
    if int(os.environ.get("WORLD_SIZE", "1")) != devices:
        raise ConfigUnfit(f"The config asks for {devices} devices: `python -m ssl_core run` starts a process for each.")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ[_RANK]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def data_parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network as it is to be called in a step: its gradients become the mean over the processes."""
    if world_size() == 1:
        return network
    # Buffers are equal by themselves, as all that moves them is joint.
    return DistributedDataParallel(sync_batch_norm.convert(network, device), broadcast_buffers=False)

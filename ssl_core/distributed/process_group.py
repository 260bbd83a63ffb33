"""Process groups: torchrun, torch.distributed and DistributedDataParallel. With one process all do nothing.

Each process computes the loss of the global batch, or of its own rows of that batch, so that the mean of the losses of
all processes is the loss of the global batch. Gradients are averaged over the processes, and `collectives.gather` sums
them in its backward: W processes give exactly the gradient of one with the global batch.
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

from ssl_core.device import count_devices
from ssl_core.distributed import collectives, sync_batch_norm
from ssl_core.distributed.collectives import world_size
from ssl_core.errors import ConfigUnfit

_RANK = "LOCAL_RANK"  # set by torchrun
_TIMEOUT = timedelta(minutes=30)  # of the collectives of a step or an evaluation, which all processes reach together
_DECISION_TIMEOUT = timedelta(days=1)  # of a decision of rank 0, which alone computes accuracies and saves


def launch(devices: int, device: str) -> None:
    """Replace this process by torchrun with one process per device; return if torchrun has started this one.

    Does nothing for one device, or for more than the machine has. device: the config's field.
    """
    if devices == 1 or is_launched() or devices > count_devices(device):
        return
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    if sys.flags.safe_path:  # as of this process; torchrun's processes inherit it as a variable only
        os.environ["PYTHONSAFEPATH"] = "1"
    os.execv(sys.executable, [*torchrun, "-m", "ssl_core", *sys.argv[1:]])


def is_launched() -> bool:
    """Return whether torchrun has started this process."""
    return _RANK in os.environ


def is_follower() -> bool:
    """Return whether this process has a rank other than 0."""
    return os.environ.get("RANK", "0") != "0"


@contextmanager
def process_group(devices: int, device: str) -> Iterator[None]:
    """Join the process group of `launch` for the block. Raises ConfigUnfit when the machine has fewer devices."""
    if devices == 1:
        yield
        return
    if devices > (available := count_devices(device)):
        what = "GPUs" if device == "cuda" else "processors"
        raise ConfigUnfit(f"The config asks for {devices} devices; this machine has {available} {what}.")
    if int(os.environ.get("WORLD_SIZE", "1")) != devices:
        raise ConfigUnfit(f"The config asks for {devices} devices: `python -m ssl_core run` starts a process for each.")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ[_RANK]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        with collectives.decisions_within(_DECISION_TIMEOUT):
            yield
    finally:
        dist.destroy_process_group()


def data_parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network wrapped so that its gradients are averaged over the processes."""
    if world_size() == 1:
        return network
    # Synchronised batch norm keeps the buffers equal.
    return DistributedDataParallel(sync_batch_norm.convert(network, device), broadcast_buffers=False)

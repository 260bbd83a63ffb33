"""Peak memory of this process: of its GPU or, without one, resident."""

import resource

import torch

from benchmarks.acceptance.setup import Setup


def read_peak_gib(setup: Setup) -> float:
    """Return the peak since the process started, in GiB."""
    if setup.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

"""NT-Xent of 65,536 embeddings in tiles: time and peak memory of value and gradient."""

from collections.abc import Iterator

import torch

from benchmarks.acceptance import memory
from benchmarks.acceptance.figure import Figure
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.training_step import measure_ms
from ssl_core.methods.losses import MOST_DENSE_ROWS, nt_xent

_DIM = 128


def measure(setup: Setup) -> Iterator[Figure]:
    rows = MOST_DENSE_ROWS + 2 if setup.tiny else 65_536
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.randn(rows // 2, _DIM, generator=generator).to(setup.device).requires_grad_() for _ in range(2)
    ]  # N×D

    def step() -> None:
        nt_xent(*views, temperature=0.2).backward()

    yield Figure(f"2N = {rows:,}", measure_ms(setup, step, 1 if setup.tiny else 3), "ms")
    yield Figure("peak memory", memory.read_peak_gib(setup), "GiB")

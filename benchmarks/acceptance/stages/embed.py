"""Rate of the encoder: images in host memory to embeddings in host memory, by batch size and precision."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.acceptance.figure import Figure
from benchmarks.acceptance.random_model import save_random_model
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.training_step import measure_ms
from ssl_core.models.encoder import Encoder
from ssl_core.serialization import saved_model


def measure(setup: Setup) -> Iterator[Figure]:
    folder = save_random_model(setup, setup.out / "embed" / "model")
    for precision in ("fp32", "bf16"):
        encoder = saved_model.load(folder, setup.device, precision=precision)
        side = encoder.image_size
        for size in (1, 16) if setup.tiny else (1, 64, 1024):
            pixels = torch.randint(256, (size, side, side, 3), dtype=torch.uint8)
            taken = measure_ms(setup, partial(_embed, encoder, pixels), 2 if setup.tiny else 40)
            yield Figure(f"{precision}, batch {size}", 1000 * size / taken, "images/s")


def _embed(encoder: Encoder, pixels: Tensor) -> Tensor:
    return encoder.encode(pixels).cpu()

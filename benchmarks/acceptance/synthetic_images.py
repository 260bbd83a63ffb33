"""Synthetic images: ten classes of coloured waves with noise, for machines without an archive of images."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.data.items import Item
from ssl_core.data.pack import pack

_CLASSES, _SIDE = 10, 32


def pack_synthetic(folder: Path, train: int, test: int) -> None:
    """Write a packed dataset of so many images of each split."""
    pack(_draw(train, test), folder)


def _draw(train: int, test: int) -> Iterator[Item]:
    random = np.random.default_rng(0)
    colours, angles = random.uniform(60, 120, (_CLASSES, 3)), np.linspace(0, np.pi, _CLASSES, endpoint=False)
    x, y = np.meshgrid(*[np.linspace(-3, 3, _SIDE)] * 2)
    for number in range(train + test):
        label = number % _CLASSES
        wave = np.cos(2 * (x * np.cos(angles[label]) + y * np.sin(angles[label])) + random.uniform(0, 2 * np.pi))
        pixels = colours[label] * (1 + wave[..., None] / 2) + random.normal(40, 15, (_SIDE, _SIDE, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "png", compress_level=1)
        yield Item(f"{number}.png", file.getvalue(), label, "train" if number < train else "test")

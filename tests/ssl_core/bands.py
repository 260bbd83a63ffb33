"""Bands: small packed datasets of images of any number of channels and bits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from ssl_core.config import Reading
from ssl_core.data.decode import encode_array
from ssl_core.data.items import Item
from ssl_core.data.pack import pack

SIDE = 16


def pack_bands(directory: Path, channels: int, train: int = 40, test: int = 24) -> Path:
    """Pack labelled 16×16 images of 8 bits."""
    items = _items(channels, train, test, lambda place: 2)
    pack((Item(name, encode_array(values), *rest) for name, values, *rest in items), directory, reading=_read(channels))
    return directory


def pack_deep_bands(directory: Path, channels: int, bits: int, train: int = 24, test: int = 12) -> Path:
    """Pack labelled images of several sizes, above 64 pixels, so that they are decoded whenever they are read."""
    items = _items(channels, train, test, lambda place: 9 + place % 2)
    scale = (2**bits - 1) / 255
    deep = ((name, (values * scale).astype(np.uint16), *rest) for name, values, *rest in items)
    pack((Item(name, encode_array(values), *rest) for name, values, *rest in deep), directory, reading=_read(channels))
    return directory


def _read(channels: int) -> Reading:
    return Reading(channels=channels)


def _items(channels, train, test, enlarge) -> Iterator[tuple[str, NDArray[np.uint8], int, str]]:
    """Digits whose channels are shifted and scaled, with noise: uint8 S×S×C, S being 8 times what `enlarge` returns."""
    digits, generator = load_digits(), np.random.default_rng(channels)
    for place, split in enumerate(["train"] * train + ["test"] * test):
        grey = np.kron(digits.images[place], np.ones((enlarge(place),) * 2)) * 15
        shown = np.stack([np.roll(grey, band, axis=0) * (1 - band / 20) for band in range(channels)], axis=2)
        values = (shown + generator.normal(0, 8, shown.shape)).clip(0, 255).astype(np.uint8)
        yield f"{place:03}.png", values, int(digits.target[place]), split

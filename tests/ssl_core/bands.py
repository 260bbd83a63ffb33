"""Bands: a small packed dataset of images of any number of channels, 16×16."""

import json
from pathlib import Path

import numpy as np

from ssl_core.checksums import document
from tests.ssl_core.digits import pack_digits

SIDE = 16


def pack_bands(directory: Path, channels: int, train: int = 40, test: int = 24) -> Path:
    """Pack labelled images whose channels are digits, shifted and scaled, with noise."""
    pack_digits(directory, train, test)
    grey = np.load(directory / "pixels.npy")[..., :1].astype(np.float64)
    generator = np.random.default_rng(channels)
    shown = np.concatenate([np.roll(grey, band, axis=1) * (1 - band / 20) for band in range(channels)], axis=3)
    pixels = (shown + generator.normal(0, 8, shown.shape)).clip(0, 255).astype(np.uint8)
    np.save(directory / "pixels.npy", pixels)
    report = json.loads((directory / "dataset.json").read_bytes())
    del report["blocks"]  # the checksums of the pixels that were there
    training = pixels[:train].reshape(-1, channels) / 255
    report |= {"mean": training.mean(0).tolist(), "std": training.std(0).tolist()}
    (directory / "dataset.json").write_text(json.dumps(document.seal(report)))
    return directory

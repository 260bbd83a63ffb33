"""Parity of views: those made on the device are those made on the CPU, with every augmentation."""

from collections.abc import Iterator

import torch

from benchmarks.acceptance.figure import Figure, check
from benchmarks.acceptance.setup import Setup
from ssl_core.augment.pipeline import ViewMaker
from ssl_core.config import Views
from ssl_core.data.image_batch import ImageBatch

_SIDES = (32, 224)
_EVERY: dict[str, object] = {
    "blur": 0.5,
    "rotation": 10,
    "shear": 0.1,
    "scale": (0.9, 1.1),
    "translation": 0.1,
    "gamma": 0.3,
    "solarize": 0.3,
    "noise": 0.05,
}


def measure(setup: Setup) -> Iterator[Figure]:
    for side in _SIDES[:1] if setup.tiny else _SIDES:
        for name, fields in {"SimCLR's": {"blur": 0.5}, "every augmentation": _EVERY}.items():
            for how in ("", ", compiled") if setup.device == "cuda" else ("",):
                levels = _compare(setup, Views(**fields), side, is_compiled=bool(how))
                yield check(f"{name}, {side} px{how}", levels <= 1, levels, "≤ 1", "of 255 levels")


def _compare(setup: Setup, views: Views, side: int, *, is_compiled: bool) -> float:
    """The largest difference of a view's pixel, in levels of 255."""
    count = 8 if setup.tiny else 64
    pixels = torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images, rows = ImageBatch.of_pixels(pixels), torch.arange(count)
    expected = ViewMaker(views, side, seed=0)(images, rows, 0, 0)
    made = ViewMaker(views, side, seed=0, is_compiled=is_compiled)(images.to(torch.device(setup.device)), rows, 0, 0)
    return 255 * (made.cpu() - expected).abs().max().item()

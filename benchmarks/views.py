"""Benchmark of augmentation against lightly: views per second on one thread, and the difference from PIL.

    .venv/bin/pip install "lightly>=1.5,<2"
    .venv/bin/python -m benchmarks.views

Both make SimCLR views at 32×32 of the same images: lightly's `SimCLRTransform(input_size=32, cj_strength=0.5,
gaussian_blur=0.0)` on PIL images, one after the other, as its data loader's workers do; Twoviews in batches of 256.
They alternate within one run, so that other load affects both. The median over rounds is reported.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

import ssl_core.models.torchvision_ops  # noqa: F401 - torchvision cannot be imported before it

# isort: split
from lightly.transforms import SimCLRTransform

from ssl_core import rng
from ssl_core.augment import geometry, parameters
from ssl_core.augment.pipeline import ViewMaker
from ssl_core.config import Views
from ssl_core.data.image_batch import ImageBatch

BATCH, SIDE, ROUNDS = 256, 32, 15


def main() -> None:
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    rates = interleave({"lightly": theirs(pixels), "ours": ours(pixels)})
    print(f"views per second at {SIDE}×{SIDE}, one thread, median of {ROUNDS} alternating rounds\n")
    print("| | views/s | slowest round | fastest round |\n|---|---|---|---|")
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f} | {max(found):,.0f} |")
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["lightly"])
    print(f"\nours / lightly = {ratio:.1f}; crops at most {levels_from_pil(pixels):.2f} of 255 levels from PIL's")


def theirs(pixels: np.ndarray) -> Callable[[int], int]:
    """Return a function that makes lightly's two views of every image and returns their number."""
    transform = SimCLRTransform(input_size=SIDE, cj_strength=0.5, gaussian_blur=0.0)
    images = [Image.fromarray(image) for image in pixels]

    def make(epoch: int) -> int:
        return sum(len(transform(image)) for image in images)

    return make


def ours(pixels: np.ndarray) -> Callable[[int], int]:
    maker = ViewMaker(Views(crop_area=(0.08, 1.0)), SIDE, seed=0)
    batch, rows = ImageBatch.of_pixels(torch.from_numpy(pixels)), torch.arange(BATCH)

    def make(epoch: int) -> int:
        return sum(len(maker(batch, rows, epoch, view)) for view in range(2))

    return make


def interleave(makers: dict[str, Callable[[int], int]]) -> dict[str, list[float]]:
    """Return views per second of each maker in each round, without the first round, which is the warm-up."""
    rates: dict[str, list[float]] = {name: [] for name in makers}
    for epoch in range(ROUNDS + 1):
        for name, make in makers.items():
            start = time.perf_counter()
            made = make(epoch)
            if epoch:
                rates[name].append(made / (time.perf_counter() - start))
    return rates


def levels_from_pil(pixels: np.ndarray) -> float:
    """Return the largest difference of a crop from PIL's with the same box, in levels of 255."""
    keys = rng.keys(rng.stream(0, 0, 0), torch.arange(BATCH))
    drawn = parameters.draw_parameters(Views(flip=0), keys, torch.full((BATCH, 2), float(SIDE)))
    made = geometry.crop(torch.from_numpy(pixels), drawn.box, drawn.mirror, SIDE).permute(0, 2, 3, 1) * 255
    worst = 0.0
    for image, view, (top, left, height, width) in zip(pixels, made, drawn.box.tolist(), strict=True):
        box = (left, top, left + width, top + height)
        wanted = np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box))
        worst = max(worst, float((view - torch.from_numpy(wanted)).abs().max()))
    return worst


if __name__ == "__main__":
    main()

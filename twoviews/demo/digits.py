"""The demo's data: scikit-learn's 1,797 handwritten digits, as the archive of PNG files that a user would upload."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

TRAIN_IMAGES = 1000  # so that one label in a hundred is ten labels: one for each digit


class Digits:
    """The images (N×8×8, uint8) and labels, shuffled once; the first TRAIN_IMAGES are for training."""

    def __init__(self) -> None:
        raw = load_digits()
        order = np.random.default_rng(0).permutation(len(raw.target))
        self.images: Any = np.round(raw.images[order] * (255 / 16)).astype(np.uint8)
        self.labels: Any = raw.target[order]

    @property
    def test(self) -> tuple[Any, Any]:
        """The images and labels that no training sees."""
        return self.images[TRAIN_IMAGES:], self.labels[TRAIN_IMAGES:]

    def archive(self, path: Path) -> Path:
        """Write `train/<digit>/…png` and `test/<digit>/…png` into a zip and return its path."""
        with zipfile.ZipFile(path, "w") as target:
            for place, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
                split = "train" if place < TRAIN_IMAGES else "test"
                target.writestr(f"{split}/{label}/{place:04d}.png", png(image))
        return path


def png(image: Any) -> bytes:
    """Return the bytes of a PNG file of the image (H×W, uint8)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()

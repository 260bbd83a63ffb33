"""The demo's dataset: scikit-learn's 1,797 handwritten digits, as a zip archive of PNG files."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

TRAIN_IMAGES = 1000  # 1 % of the labels is ten labels: one per digit


class Digits:
    """The images (N×8×8, uint8) and labels (N), shuffled once; the first TRAIN_IMAGES are for training."""

    def __init__(self) -> None:
        raw = load_digits()
        order = np.random.default_rng(0).permutation(len(raw.target))
        self.images: Any = np.round(raw.images[order] * (255 / 16)).astype(np.uint8)
        self.labels: Any = raw.target[order]

    @property
    def test(self) -> tuple[Any, Any]:
        """The images and labels of the test split."""
        return self.images[TRAIN_IMAGES:], self.labels[TRAIN_IMAGES:]

    def write_zip(self, path: Path) -> Path:
        """Write `train/<digit>/…png` and `test/<digit>/…png` to a zip archive and return its path."""
        with zipfile.ZipFile(path, "w") as target:
            for index, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
                split = "train" if index < TRAIN_IMAGES else "test"
                target.writestr(f"{split}/{label}/{index:04d}.png", png(image))
        return path


def png(image: Any) -> bytes:
    """Encode the image (H×W, uint8) as PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()

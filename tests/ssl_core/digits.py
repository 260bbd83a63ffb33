"""Digits: a small packed dataset of scikit-learn's digits, enlarged to 16×16."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ssl_core.data.items import Item
from ssl_core.data.pack import pack

TINY = {
    "backbone": {"name": "resnet10", "width": 0.125, "stem": "cifar_stride2"},
    "batch_size": 16,
    "phases": [{"until": 0.5, "image_size": 8}, {"until": 1.0, "image_size": 16}],
    "views": {"flip": 0.0, "grey": 0.0},
    "pictures": False,  # drawing takes longer than the run
}


def png(image: np.ndarray) -> bytes:
    """The 8×8 digit (0 to 16) as a 16×16 grey PNG."""
    file = io.BytesIO()
    Image.fromarray(np.kron(image, np.ones((2, 2))).clip(0, 16).astype(np.uint8) * 15).save(file, "png")
    return file.getvalue()


def items(train: int, test: int, *, labels: bool = True) -> list[Item]:
    """`train` and then `test` digits, each of its split; labelled or not."""
    digits = load_digits()
    return [
        Item(f"{place}.png", png(digits.images[place]), int(digits.target[place]) if labels else None, split)
        for place, split in enumerate(["train"] * train + ["test"] * test)
    ]


def pack_digits(directory: Path, train: int = 72, test: int = 40, *, labels: bool = True) -> Path:
    pack(items(train, test, labels=labels), directory)
    return directory


def write_folder(folder: Path, count: int) -> Path:
    """Write unlabelled PNG files."""
    folder.mkdir(parents=True)
    for item in items(count, 0):
        (folder / item.name).write_bytes(item.data)
    return folder

"""Packed datasets of several kinds of images, and their rows in the database."""

from pathlib import Path

import numpy as np
from PIL import Image

from service.db import ids
from service.db.models import Dataset
from service.db.session import Database, now
from ssl_core.checksums import document
from ssl_core.data import decode
from ssl_core.data.items import Item
from ssl_core.data.pack import pack
from tests.pictures import encoded, jpeg, pixels, png

SIZES = {"train/cat/1.jpg": (1600, 900), "train/cat/2.jpg": (90, 300), "train/dog/1.jpg": (64, 64)}
TURNED = Image.Exif()
TURNED[0x0112] = 6  # a quarter turn
PHOTOS = {
    **{name: jpeg(seed, *size) for seed, (name, size) in enumerate(SIZES.items())},
    "train/dog/turned.jpg": encoded(Image.fromarray(pixels(9, 200, 100)), "JPEG", exif=TURNED),
    **{f"val/cat/{number}.png": png(number, 20, 10) for number in range(30)},
    **{f"test/dog/{number}.png": png(number, 20, 10) for number in range(7)},
}


def pack_all(folder: Path) -> None:
    """Pack `photos`, `grey16`, `five` channels and `small` images into folders of these names; `broken` has
    a flipped bit in the image of row 1."""
    ramp = np.linspace(0, 4095, 600, dtype=np.uint16).reshape(20, 30)
    five = np.zeros((40, 80, 5), np.uint16)
    five[:, :40, 0], five[:, :, 4] = 65535, 65535  # the left half is red; the fifth channel is not shown
    noise = np.random.default_rng(0).integers(0, 256, (3, 500, 600, 3), np.uint8)  # of several blocks of checksums each
    contents = {
        "photos": PHOTOS,
        "grey16": {"ramp.png": encoded(Image.fromarray(ramp))},
        "five": {"five.tif": decode.encode_array(five)},
        "small": {f"train/{'ab'[number % 2]}/{number}.png": png(number, 32, 32) for number in range(20)},
        "broken": {f"{number}.png": encoded(Image.fromarray(noise[number])) for number in range(3)},
    }
    for name, files in contents.items():
        pack((Item(path, data) for path, data in files.items()), folder / name)
    assert (folder / "small" / "pixels.npy").is_file()
    arrow = folder / "broken" / "images.arrow"
    data = bytearray(arrow.read_bytes())
    data[len(data) // 2] ^= 0x40
    arrow.write_bytes(data)


def add(database: Database, tenant: str, folder: Path, name: str, *, path: str | None = None) -> str:
    """Insert a ready dataset of the tenant, whose files are those of `name` in `folder`; return its id."""
    dataset = ids.new("ds")
    with database.writing() as session:
        session.add(
            Dataset(
                id=dataset, tenant_id=tenant, name=name, status="ready", on_bad_file="reject", sha256="0" * 64,
                size_bytes=1, path=path or f"datasets/{name}", report=document.read(folder / name / "dataset.json"),
                created_at=now(), ready_at=now(),
            )
        )  # fmt: skip
    return dataset

"""Embeddings: one float32 row per image, a batch of images per request, without numpy."""

import base64
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from twoviews import image_bytes, upload
from twoviews.image_bytes import Image
from twoviews.transport import Transport

if TYPE_CHECKING:
    Row = array[float]  # subscriptable at run time since Python 3.12
else:
    Row = array
SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


def embed(transport: Transport, model: str, images: Image | Iterable[Image], layer: str, batch: int) -> Iterator[Row]:
    """Yield one row of D float32 values per image, in order."""
    remaining = iter(image_bytes.as_images(images))
    while chunk := list(islice(remaining, batch)):
        fields = {"model": model, "layer": layer, "encoding_format": "base64"}
        parts = [
            ("images", (f"{index}", image_bytes.read(image), "application/octet-stream"))
            for index, image in enumerate(chunk)
        ]
        answer = transport.send("POST", "/embed", data=fields, files=parts).json()
        for item in sorted(answer["data"], key=lambda item: int(item["index"])):
            yield _decode_row(item["embedding"])


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Return the files, and in place of each folder its images at any depth, sorted and without hidden ones.

    The images of a folder are its files with a suffix of `SUFFIXES`; linked folders are followed.
    Raises FileNotFoundError.
    """
    found: list[Path] = []
    for path in paths:
        images = [path] if path.is_file() else _find_in_folder(path)
        if not images:
            raise FileNotFoundError(f"There are no images in {path}." if path.is_dir() else f"There is no file {path}.")
        found += images
    return found


def _find_in_folder(folder: Path) -> list[Path]:
    files = upload.find_files(folder) if folder.is_dir() else []
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def _decode_row(text: str) -> Row:
    """Decode a row from base64 of little-endian float32."""
    row: Row = array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        row.byteswap()
    return row

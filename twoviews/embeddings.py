"""Vectors: images to float32 rows, a batch of images per request, without numpy."""

import base64
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from twoviews.transport import Transport

Image = str | Path | bytes
if TYPE_CHECKING:
    Row = array[float]  # typed since Python 3.12 when the program runs
else:
    Row = array


def embed(transport: Transport, model: str, images: Iterable[Image], layer: str, batch: int) -> Iterator[Row]:
    """Yield one row for each image, in order."""
    waiting = iter(images)
    while some := list(islice(waiting, batch)):
        fields = {"model": model, "layer": layer, "encoding_format": "base64"}
        parts = [
            ("images", (f"{place}", _content(image), "application/octet-stream")) for place, image in enumerate(some)
        ]
        answer = transport.send("POST", "/embed", data=fields, files=parts).json()
        for item in sorted(answer["data"], key=lambda item: int(item["index"])):
            yield _row(item["embedding"])


def _content(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def _row(text: str) -> Row:
    """Return the row in a base64 text of little-endian float32."""
    row: Row = array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        row.byteswap()
    return row

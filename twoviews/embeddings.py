"""Embeddings: one float32 row per image, a batch of images per request, without numpy."""

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
    Row = array[float]  # subscriptable at run time since Python 3.12
else:
    Row = array


def embed(transport: Transport, model: str, images: Iterable[Image], layer: str, batch: int) -> Iterator[Row]:
    """Yield one row of D float32 values per image, in order."""
    remaining = iter(images)
    while chunk := list(islice(remaining, batch)):
        fields = {"model": model, "layer": layer, "encoding_format": "base64"}
        parts = [
            ("images", (f"{index}", _read_image(image), "application/octet-stream"))
            for index, image in enumerate(chunk)
        ]
        answer = transport.send("POST", "/embed", data=fields, files=parts).json()
        for item in sorted(answer["data"], key=lambda item: int(item["index"])):
            yield _decode_row(item["embedding"])


def _read_image(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def _decode_row(text: str) -> Row:
    """Decode a row from base64 of little-endian float32."""
    row: Row = array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        row.byteswap()
    return row

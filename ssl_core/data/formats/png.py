"""PNG files beyond Pillow: colours of 16 bits, and long texts beside the pixels."""

import struct
import zlib
from collections.abc import Iterable, Iterator

import imagecodecs
import numpy as np

from ssl_core.data.formats.samples import BadImage, Samples

_TEXT_BYTES = 2**16  # of a text that are kept
_MOST_FILTER = 4  # of a row of pixels
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}


def read16(data: bytes) -> Samples:
    """Return the values of a PNG whose header has been checked; its orientation is not applied. Raises BadImage."""
    kept = [chunk for chunk in _chunks(data) if chunk[0][0] & 0x20 == 0]  # critical ones
    _check_rows(data, kept)
    try:
        values = imagecodecs.png_decode(_join(kept))
    except MemoryError:
        raise
    except Exception as error:
        raise BadImage("corrupt", f"The image is damaged or cut short: {str(error)[:200].strip(' .')}.") from error
    values = values.reshape(*values.shape[:2], -1)
    channels = values.shape[2]
    if channels not in (2, 4):
        return Samples(values, is_colour=channels == 3)
    colour = np.ascontiguousarray(values[:, :, : channels - 1])
    return Samples(colour, is_colour=channels == 4, alpha=np.ascontiguousarray(values[:, :, -1]))


def _check_rows(data: bytes, chunks: list[tuple[bytes, bytes]]) -> None:
    """Raise BadImage when the compressed rows are damaged.

    Each failure of imagecodecs' decoder loses a reference to None, and the interpreter aborts after tens of thousands.
    """
    width, height, _, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    row_bytes = 1 + 2 * width * {0: 1, 2: 3, 4: 2, 6: 4}.get(colour, 4)
    unpacker = zlib.decompressobj()
    most = 2 * height * row_bytes + 2**16  # interlaced images have a little more than their rows
    try:
        rows = unpacker.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"), most)
    except zlib.error as error:
        raise BadImage("corrupt", f"The image is damaged or cut short: {error}.") from error
    whole = unpacker.eof and (interlace == 1 or len(rows) == height * row_bytes)
    if not whole or interlace > 1 or (interlace == 0 and max(rows[::row_bytes], default=0) > _MOST_FILTER):
        raise BadImage("corrupt", "The image is damaged or cut short: its rows are not whole.")


def shorten_texts(data: bytes) -> bytes:
    """Return the file with at most the first 64 KiB of each text, uncompressed, and without a colour profile."""
    return _join(
        (kind, _shorten(kind, body) if kind in _TEXTS else body) for kind, body in _chunks(data) if kind != b"iCCP"
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and body of each chunk that is whole."""
    place = 8
    while place + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if place + 12 + size > len(data):
            return
        yield kind, data[place + 8 : place + 8 + size]
        place += 12 + size


def _join(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(kind + body))]
    return b"".join(parts)


def _shorten(kind: bytes, body: bytes) -> bytes:
    key, _, rest = body.partition(b"\0")
    if kind == b"iTXt" and rest[:1] == b"\1":
        language, _, rest = rest[2:].partition(b"\0")
        translated, _, rest = rest.partition(b"\0")
        text = _inflate(rest)
        return b"\0".join((key[:79], b"\0", language[:79], translated[:79], text))
    if kind == b"zTXt":
        return key[:79] + b"\0\0" + zlib.compress(_inflate(rest[1:]))
    return body[:_TEXT_BYTES]


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _TEXT_BYTES)
    except zlib.error:
        return b""

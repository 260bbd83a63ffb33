"""Images of a program as image files: paths, bytes, Pillow images and numpy arrays; neither package is needed."""

import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Image = str | Path | bytes | Any  # Any: an image of Pillow, or an array of uint8, H×W or H×W×3
_WANTED = "an image is a path, the bytes of a file, a Pillow image, or a uint8 array of H×W or H×W×3"
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
# Modes of 8 bits that PNG does not have, and the one that loses nothing.
_CONVERTED = {**dict.fromkeys(("CMYK", "YCbCr", "LAB", "HSV", "RGBX"), "RGB"), "PA": "RGBA", "RGBa": "RGBA"}
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # of PNG, by channels


def as_images(images: Any) -> Iterable[Image]:
    """Return one image as a list of it, an array of N×H×W×3 as its N images, and any other iterable unchanged.

    Raises TypeError for what is neither an image nor an iterable.
    """
    if isinstance(images, str | Path | bytes | bytearray | memoryview) or _is_pillow(images):
        return [images]
    if _is_array(images) and images.ndim > 1:
        return list(images) if images.ndim == 4 else [images]
    if not isinstance(images, Iterable):
        raise TypeError(f"not images: {type(images).__name__}; {_WANTED}, or an iterable of these.")
    return images


def read(image: Image) -> bytes:
    """Return the bytes of an image file. Raises TypeError, and OSError for a path."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if _is_pillow(image):
        return _encode_pillow(image)
    if _is_array(image):
        return _encode_png(image)
    raise TypeError(f"not an image: {type(image).__name__}; {_WANTED}.")


def _is_pillow(image: Any) -> bool:
    return all(hasattr(image, name) for name in ("mode", "size", "save", "convert"))


def _is_array(image: Any) -> bool:
    return hasattr(image, "__array_interface__") and hasattr(image, "ndim")


def _encode_pillow(image: Any) -> bytes:
    """Encode an image of Pillow upright, as the service reads its file. Raises TypeError for other than 8 bits."""
    from PIL import ImageOps  # noqa: PLC0415 - installed, as its image is here

    upright = ImageOps.exif_transpose(image)
    if upright.mode not in _PNG_MODES:
        if upright.mode not in _CONVERTED:
            raise TypeError(f"not an image of 8 bits: a Pillow image of mode {upright.mode}; send its file instead.")
        upright = upright.convert(_CONVERTED[upright.mode])
    file = io.BytesIO()
    upright.save(file, "PNG")
    return file.getvalue()


def _encode_png(array: Any) -> bytes:
    """Encode a uint8 array of H×W or H×W×C, C being 1, 3 or 4. Raises TypeError."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if str(array.dtype) != "uint8" or array.ndim not in (2, 3) or channels not in _COLOUR_TYPES or not array.size:
        raise TypeError(f"not an image: an array of {array.dtype} with the shape {tuple(array.shape)}; {_WANTED}.")
    height, width, data = array.shape[0], array.shape[1], array.tobytes()
    row = width * channels
    lines = b"".join(b"\0" + data[start : start + row] for start in range(0, len(data), row))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )

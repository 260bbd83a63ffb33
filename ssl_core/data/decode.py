"""Image decoding: from the bytes of a file to RGB pixels.

Ingestion, training and the encoder server share it, so they get the same pixels: first frame, EXIF orientation applied,
transparency on white, 16-bit greys scaled to 8 bits, every colour model as RGB. The format is detected from the bytes.
Only the encoder server reads images of more than LARGE_PIXELS at a reduced size (`decode_square`).
"""

import io
import re
from collections.abc import Callable
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

CountPixels = Callable[[int], None]
MAX_PIXELS = 100_000_000
LARGE_PIXELS = 2**24  # beyond the photographs of most cameras, whose pixels are always those of training
SPARE = 4  # a reduced image has this many times the pixels, per side, of the size that it is resized to
STRIP_PIXELS = 2**20  # that are RGB at a time
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
COSTLY_FORMATS = ("WEBP", "AVIF", "JPEG2000")  # whose decoders need up to 18 bytes for each pixel, at full size
NOTES = ("orientation", "grey16", "cmyk", "palette", "alpha", "animated", "grey")

# `max_pixels` below is the limit. Pillow's own, which only warns at its default, is set far above it for the sizes
# that Pillow reads inside a file (tiles, frames).
Image.MAX_IMAGE_PIXELS = 2**28

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A JPEG decoder passes over all pixels for each scan, of a few bytes; encoders write up to 20.
_MAX_SCANS = 100
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_GREY16 = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", "I", *_GREY16)


class BadImage(Exception):
    """Raised for bytes that cannot be decoded as an image; `code` and `detail` give the reason."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


def decode(data: bytes, max_pixels: float = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the image as RGB, uint8 H×W×3. Raises BadImage."""
    return decode_with_notes(data, max_pixels)[0]


def decode_with_notes(
    data: bytes, max_pixels: float = MAX_PIXELS, count_pixels: CountPixels | None = None
) -> tuple[NDArray[np.uint8], set[str]]:
    """Return the image as RGB, uint8 H×W×3, and the NOTES that apply to the file. Raises BadImage.

    count_pixels: called with the number of pixels that the header declares, before any is decoded.
    """
    image = _open(data, max_pixels)
    if count_pixels is not None:
        count_pixels(image.width * image.height)
    try:
        image, notes = _load_upright(image)
        return _convert_to_rgb(image, notes), notes
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # decoders raise nearly any exception on damaged data
        raise _corrupt(error) from error


def count_pixels(data: bytes, max_pixels: float = MAX_PIXELS, max_costly_pixels: float = MAX_PIXELS) -> int:
    """Return the number of pixels by the file's header, without decoding. Raises BadImage.

    max_costly_pixels: the limit for COSTLY_FORMATS, if it is less than `max_pixels`.
    """
    image = _open(data, max_pixels)
    if image.format in COSTLY_FORMATS:
        _check_pixels(image, max_costly_pixels, f" of a {image.format} image")
    return image.width * image.height


def decode_square(data: bytes, side: int, max_pixels: float = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the central square as RGB, uint8 side×side×3: `centre_crop` of `decode`, in less memory. Raises BadImage.

    It is reduced by a whole factor to no less than SPARE*side, then resized, as with Pillow's `reducing_gap`. A JPEG is
    reduced by up to 8 while it is decoded. The memory of another format is that of its colour model and its decoder, up
    to 18 bytes for each pixel (JPEG 2000), and not that of RGB in addition.
    """
    image = _open(data, max_pixels)
    try:
        width, height = image.size
        if image.format == "JPEG" and (factor := min(width, height) // (SPARE * side)) > 1:
            image.draft(None, (-(-width // factor), -(-height // factor)))
        scale = round(width / image.width)  # 1, 2, 4 or 8
        image.load()
        if image.format != "JPEG":
            width, height = image.size  # Pillow has transposed a TIFF
        square = _resize_square(image, width / scale, height / scale, side)
        orientation = _read_orientation(image)
        return np.asarray(_transpose(square, orientation) if orientation in _TRANSPOSES else square)
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # as in decode_with_notes
        raise _corrupt(error) from error


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return H×W or H×W×3 pixels as a PNG file; equal pixels give equal bytes."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=3)
    return target.getvalue()


def _open(data: bytes, max_pixels: float) -> Image.Image:
    if not data:
        raise BadImage("empty", "The file is empty.")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("not_an_image", "The file is not an image of a known format.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("too_many_pixels", f"The image has more than {max_pixels:,} pixels.") from error
    except Exception as error:  # as in decode_with_notes
        raise _corrupt(error) from error
    width, height = image.size
    if width < 1 or height < 1:
        raise BadImage("no_pixels", "The image has no pixels.")
    _check_pixels(image, max_pixels)
    if image.format in ("JPEG", "MPO") and _has_too_many_scans(data):
        raise BadImage("too_many_scans", f"The image has more than {_MAX_SCANS} scans.")
    return image


def _check_pixels(image: Image.Image, most: float, of: str = "") -> None:
    if image.width * image.height > most:
        size = f"{image.width:,}×{image.height:,}"
        raise BadImage("too_many_pixels", f"The image has {size} pixels; at most {most:,}{of} are read.")


def _has_too_many_scans(data: bytes) -> bool:
    """Whether a JPEG file has more than `_MAX_SCANS` scans; bytes within segments or after its end do not count."""
    if data.count(bytes((0xFF, _START_OF_SCAN))) <= _MAX_SCANS:
        return False
    scans, position = 0, 2
    while (marker := _JPEG_MARKER.search(data, position)) and marker[1][0] != _END_OF_IMAGE:
        scans += marker[1][0] == _START_OF_SCAN
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return scans > _MAX_SCANS


def _load_upright(image: Image.Image) -> tuple[Image.Image, set[str]]:
    """Return the first frame, decoded and with its orientation applied, and its notes."""
    notes = set()
    # The second picture of an MPO is a thumbnail, a depth map or a gain map, not a second frame.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        notes.add("animated")
    if image.mode in _GREY:
        notes.add("grey")
    before = _read_orientation(image)
    image.load()
    after = _read_orientation(
        image
    )  # absent if Pillow has transposed the image itself (TIFF); read from a PNG only after `load`
    if before in _TRANSPOSES or after in _TRANSPOSES:
        notes.add("orientation")
    if after in _TRANSPOSES:
        image = _transpose(image, after)
    return image, notes


def _resize_square(image: Image.Image, width: float, height: float, side: int) -> Image.Image:
    """Return the central square of a loaded image as RGB at side×side; strip by strip, to save memory.

    width, height: of the image, where its last column and row are not whole pixels.
    """
    length = min(width, height)
    left, top = (width - length) / 2, (height - length) / 2
    factor = max(1, int(length) // (SPARE * side))
    margin = ceil(length / side) + 1  # that bilinear interpolation reads around the square
    x, y = (max(0, int(start) - margin) for start in (left, top))
    right, bottom = (min(ceil(end + length) + margin, size) for end, size in zip((left, top), image.size, strict=True))
    rows = max(1, STRIP_PIXELS // ((right - x) * factor)) * factor
    strips = [
        Image.fromarray(_convert_to_rgb(image.crop((x, row, right, min(row + rows, bottom))), set())).reduce(factor)
        for row in range(y, bottom, rows)
    ]
    box = (left - x, top - y, left - x + length, top - y + length)
    reduced = Image.fromarray(np.concatenate([np.asarray(strip) for strip in strips]))
    scaled = (box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor)
    return reduced.resize((side, side), Image.Resampling.BILINEAR, box=scaled)


def _read_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - damaged metadata does not affect the pixels
        return 1


def _transpose(image: Image.Image, orientation: int) -> Image.Image:
    info = image.info
    image = image.transpose(_TRANSPOSES[orientation])
    image.info = info  # holds the transparent colour, if any
    return image


def _convert_to_rgb(image: Image.Image, notes: set[str]) -> NDArray[np.uint8]:
    if image.mode == "CMYK":
        notes.add("cmyk")
    if image.mode in ("P", "PA"):
        notes.add("palette")
    if image.mode in _GREY16 or image.mode == "I":
        notes.add("grey16")
        return _convert_grey16(image)
    if image.mode == "F":
        raise BadImage("unsupported_depth", "The image has floating-point pixels; 8 or 16 bits are read.")
    if image.has_transparency_data:
        notes.add("alpha")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _convert_grey16(image: Image.Image) -> NDArray[np.uint8]:
    values = np.array(image)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage("unsupported_depth", "The image has 32 bits per pixel; 8 or 16 are read.")
    grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _corrupt(error: Exception) -> BadImage:
    reason = str(error)[:200].strip(" .") or type(error).__name__
    return BadImage("corrupt", f"The image is damaged or cut short: {reason}.")

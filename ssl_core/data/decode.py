"""Image decoding: from the bytes of a file to pixels of 8 bits.

Ingestion, training and the encoder server share it, so they get the same pixels: first frame, EXIF orientation applied,
transparency on white, every colour model as RGB, deep values scaled by a range. The format is detected from the bytes.
Pillow reads 8 bits in one, three or four channels; `ssl_core.data.formats` the rest, and is loaded when it is needed.
Only the encoder server reads images at a reduced size: those of more than LARGE_PIXELS, and for thumbnails.
"""

import importlib.util
import io
import logging
import re
from collections.abc import Callable
from math import ceil
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ssl_core.data.centre_crop import centre_crop
from ssl_core.data.formats import recognise, tiff_pages, value_range
from ssl_core.data.formats.samples import BadImage as BadImage
from ssl_core.data.formats.samples import Samples, check_size, fit_channels
from ssl_core.data.formats.value_range import ValueRange

CountPixels = Callable[[int], None]
T = TypeVar("T")
MAX_PIXELS = 100_000_000
LARGE_PIXELS = 2**24  # beyond the photographs of most cameras, whose pixels are always those of training
SPARE = 4  # a reduced image has this many times the pixels, per side, of the size that it is resized to
STRIP_PIXELS = 2**20  # that are RGB at a time
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
COSTLY_FORMATS = ("WEBP", "AVIF", "JPEG2000", "HEIF")  # whose decoders need up to 18 bytes for each pixel, at full size
NOTES = ("orientation", "grey16", "cmyk", "palette", "alpha", "animated", "grey", "deep")

# `max_pixels` below is the limit. Pillow's own, which only warns at its default, is set far above it for the sizes
# that Pillow reads inside a file (tiles, frames).
Image.MAX_IMAGE_PIXELS = 2**28
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # the reasons are in BadImage

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
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY16 = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", "I", *_GREY16)


def decode(
    data: bytes,
    max_pixels: float = MAX_PIXELS,
    *,
    channels: int | None = 3,
    values: ValueRange | None = None,
    side: int | None = None,
) -> NDArray[np.uint8]:
    """Return the image as uint8 H×W×C. Raises BadImage.

    channels: None keeps those of the file, with greys as RGB. values: of deep images; None: by the image's bit depth.
    side: a longer side, in pixels, that is enough: an 8-bit image of twice that and more is reduced, to save memory.
    """
    return to_pixels(load(data, max_pixels, side=side)[0], channels, values)


def decode_with_notes(
    data: bytes, max_pixels: float = MAX_PIXELS, count_pixels: CountPixels | None = None
) -> tuple[NDArray[np.uint8], set[str]]:
    """Return the image as RGB, uint8 H×W×3, and the NOTES that apply to the file. Raises BadImage.

    count_pixels: called with the number of pixels that the header declares, before any is decoded.
    """
    samples, notes = load(data, max_pixels, count_pixels)
    return to_pixels(samples, 3, None), notes


def to_pixels(samples: Samples, channels: int | None, values: ValueRange | None) -> NDArray[np.uint8]:
    """Return uint8 H×W×C of an image as it was loaded; see `decode`. Raises BadImage."""
    if samples.is_deep:
        return fit_channels(_scale(samples, channels, values), channels, is_colour=samples.is_colour)
    return fit_channels(samples.values, channels, is_colour=samples.is_colour)


def load(
    data: bytes, max_pixels: float = MAX_PIXELS, count_pixels: CountPixels | None = None, side: int | None = None
) -> tuple[Samples, set[str]]:
    """Return the image's values, upright, and the NOTES that apply to the file; side: see `decode`. Raises BadImage."""
    return _with_short_texts(lambda data: _load(data, max_pixels, count_pixels, side), data)


def count_pixels(data: bytes, max_pixels: float = MAX_PIXELS, max_costly_pixels: float = MAX_PIXELS) -> int:
    """Return the number of pixels by the file's header, without decoding. Raises BadImage.

    Deep images count once for every 4 bytes of a pixel. max_costly_pixels: the limit for COSTLY_FORMATS, if it is less
    than `max_pixels`.
    """
    return _with_short_texts(lambda data: _count_pixels(data, max_pixels, max_costly_pixels), data)


def decode_square(
    data: bytes,
    side: int,
    max_pixels: float = MAX_PIXELS,
    *,
    channels: int | None = 3,
    values: ValueRange | None = None,
) -> NDArray[np.uint8]:
    """Return the central square as uint8 side×side×C: `centre_crop` of `decode`, in less memory. Raises BadImage.

    It is reduced by a whole factor to no less than SPARE*side, then resized, as with Pillow's `reducing_gap`. A JPEG is
    reduced by up to 8 while it is decoded. The memory of another format is that of its colour model and its decoder, up
    to 18 bytes for each pixel (JPEG 2000), and not that of RGB in addition. A deep image is not reduced.
    """
    return _with_short_texts(lambda data: _decode_square(data, side, max_pixels, channels, values), data)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return H×W or H×W×3 pixels as a PNG file; equal pixels give equal bytes."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=3)
    return target.getvalue()


def encode_array(values: NDArray) -> bytes:
    """Return H×W or H×W×C values as a file that `decode` reads; equal arrays give equal bytes.

    uint8 values of one or three channels become a PNG, others a TIFF. Raises BadImage when there are too many channels.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.dtype == np.uint8 and (values.ndim == 2 or values.shape[2] == 3):
        return encode_png(values)
    from ssl_core.data.formats import tiff  # noqa: PLC0415 - slow to import, and seldom needed

    return tiff.encode(values if values.ndim == 3 else values[:, :, None])


def _with_short_texts(work: Callable[[bytes], T], data: bytes) -> T:
    """Do the work; again without the long texts of a PNG that exceed what Pillow reads."""
    try:
        return work(data)
    except BadImage as bad:
        if bad.code != "corrupt" or "MAX_TEXT" not in bad.detail:
            raise
    from ssl_core.data.formats import png  # noqa: PLC0415

    return work(png.shorten_texts(data))


def _load(
    data: bytes, max_pixels: float, count_pixels: CountPixels | None, side: int | None = None
) -> tuple[Samples, set[str]]:
    image = open_header(data, max_pixels)
    if (is_tiff := is_deep_tiff(image)) or _is_deep_png(data, image):
        cost = _measure(data, image, max_pixels)
        if count_pixels is not None:
            count_pixels(cost)
        return _load_deep(data, image, max_pixels, is_tiff=is_tiff)
    assert image is not None
    if count_pixels is not None:
        count_pixels(image.width * image.height)
    try:
        if side is not None:
            _reduce_jpeg(image, side)
        image, notes = _load_upright(image, is_animated=count_pages(data, image) > 1)
        factor = 1 if side is None or image.mode in _GREY16 else max(1, max(image.size) // side)
        return convert(image, notes) if factor == 1 else _reduce(image, factor, notes), notes
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # decoders raise nearly any exception on damaged data
        raise _corrupt(error) from error


def _load_deep(data: bytes, image: Image.Image | None, max_pixels: float, *, is_tiff: bool) -> tuple[Samples, set[str]]:
    if is_tiff:
        reader = reader_of(data)
        samples, orientation = reader.read(data, max_pixels), reader.orientation(data)
    else:
        from ssl_core.data.formats import png  # noqa: PLC0415

        samples, orientation = png.read16(data), _read_orientation(image)
    notes = {"grey16" if samples.values.shape[2] == 1 else "deep"} if samples.is_deep else set()
    if samples.values.shape[2] == 1:
        notes.add("grey")
    if samples.alpha is not None:
        notes.add("alpha")
    if count_pages(data, image) > 1:
        notes.add("animated")
    if orientation in _TRANSPOSES:
        notes.add("orientation")
        samples = samples.oriented(orientation)
    return samples, notes


def convert(image: Image.Image, notes: set[str]) -> Samples:
    """Return the values of an image that Pillow has loaded, and add to its notes."""
    if image.mode in _GREY16 or image.mode == "I":
        notes.add("grey16")
        return Samples(_read_grey16(image))
    return Samples(_convert_to_rgb(image, notes), is_colour=True)


def count_pages(data: bytes, image: Image.Image | None = None) -> int:
    """Return the number of pages or frames, without the overviews, masks and thumbnails that some formats have."""
    if data[:4] in _TIFF:
        return len(tiff_pages.find(data))
    if image is None and _is_dicom(data):
        return int(reader_of(data).count_frames(data))
    try:
        image = image or _open_heif(data) or Image.open(io.BytesIO(data), formats=FORMATS)
        # The second picture of an MPO is a thumbnail, a depth map or a gain map, not a second frame.
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except MemoryError:
        raise
    except Exception as error:  # as in `_load`
        raise _corrupt(error) from error


def _count_pixels(data: bytes, max_pixels: float, max_costly_pixels: float) -> int:
    image = open_header(data, max_pixels)
    if image is None or is_deep_tiff(image) or _is_deep_png(data, image):
        return _measure(data, image, max_pixels)
    if image.format in COSTLY_FORMATS:
        _check_pixels(image, max_costly_pixels, f" of a {image.format} image")
    return image.width * image.height


def _measure(data: bytes, image: Image.Image | None, max_pixels: float) -> int:
    if image is not None and image.format == "PNG":
        channels = {2: 3, 4: 2, 6: 4}[data[25]]
        return check_size(image.width, image.height, channels, 2, max_pixels)
    return int(reader_of(data).measure(data, max_pixels))


def reader_of(data: bytes) -> Any:
    """The module that reads a file which Pillow does not: `tiff` or `dicom`."""
    return importlib.import_module(f"ssl_core.data.formats.{'dicom' if _is_dicom(data) else 'tiff'}")


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM" and importlib.util.find_spec("pydicom") is not None


def _open_heif(data: bytes) -> Image.Image | None:
    """Return a HEIF image with its header read; None for other files and without the extra `heic`."""
    if data[4:8] != b"ftyp" or importlib.util.find_spec("pillow_heif") is None:
        return None
    importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)
    try:
        return Image.open(io.BytesIO(data), formats=("HEIF",))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - videos, and damaged files
        return None


def _decode_square(
    data: bytes, side: int, max_pixels: float, channels: int | None, values: ValueRange | None
) -> NDArray[np.uint8]:
    image = open_header(data, max_pixels)
    if is_deep_tiff(image) or _is_deep_png(data, image) or (image and image.mode in (*_GREY16, "I")):
        samples, _ = _load(data, max_pixels, None)
        pixels = _scale(samples, channels, values) if samples.is_deep else samples.values
        return fit_channels(centre_crop(pixels, side), channels, is_colour=samples.is_colour)
    assert image is not None
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
        square = _transpose(square, orientation) if orientation in _TRANSPOSES else square
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # as in `_load`
        raise _corrupt(error) from error
    return fit_channels(np.asarray(square), channels)


def _scale(samples: Samples, channels: int | None, values: ValueRange | None) -> NDArray[np.uint8]:
    """The values as uint8 H×W×C; those of a range for each of `channels` if there is one."""
    if values is not None and len(values.low) not in (1, samples.values.shape[2]):
        fit_channels(np.empty((1, 1, samples.values.shape[2]), np.uint8), channels or len(values.low))  # says why
    return (values or value_range.own_range(samples)).scale(samples)


def is_deep_tiff(image: Image.Image | None) -> bool:
    """Whether the file is a TIFF that Pillow does not read in full: deep, or of more channels than it knows."""
    if image is None:
        return True
    if image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    extras = tags.get(338, ())
    # An unspecified sample is a channel, but behind CMYK, a palette, or other extra samples.
    is_band = tuple(extras) == (0,) * len(extras) and len(extras) > 0 and tags.get(262) in (1, 2)
    return max(tags.get(258, (1,))) > 8 or is_band or image.mode in ("F", "I")


def _is_deep_png(data: bytes, image: Image.Image | None) -> bool:
    """Whether it is a PNG of 16 bits that Pillow cuts to 8; greys it does not cut."""
    return image is not None and image.format == "PNG" and data[24:25] == b"\x10" and data[25:26] != b"\0"


def open_header(data: bytes, max_pixels: float) -> Image.Image | None:
    """Return the image with its header read; None for a TIFF that Pillow does not know, or DICOM."""
    if not data:
        raise BadImage("empty", "The file is empty.")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        if (data[:4] in _TIFF and len(data) > 8) or _is_dicom(data):
            return None
        if (heif := _open_heif(data)) is None:
            raise BadImage("not_an_image", recognise.explain(data)) from error
        image = heif
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


def _load_upright(image: Image.Image, *, is_animated: bool) -> tuple[Image.Image, set[str]]:
    """Return the first frame, decoded and with its orientation applied, and its notes."""
    notes = {"animated"} if is_animated else set()
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


def _reduce_jpeg(image: Image.Image, side: int) -> None:
    """Let a JPEG be reduced while it is decoded, by 8, 4 or 2, to no less than `side` pixels on its longer side."""
    factor = next((factor for factor in (8, 4, 2) if max(image.size) >= factor * side), 1)
    if image.format == "JPEG" and factor > 1:
        image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))


def _reduce(image: Image.Image, factor: int, notes: set[str]) -> Samples:
    """Return a loaded image as RGB at 1/factor of its size; strip by strip, to save memory."""
    rows = max(1, STRIP_PIXELS // (image.width * factor)) * factor
    strips = [
        Image.fromarray(
            _convert_to_rgb(image.crop((0, row, image.width, min(row + rows, image.height))), notes)
        ).reduce(factor)
        for row in range(0, image.height, rows)
    ]
    return Samples(np.concatenate([np.asarray(strip) for strip in strips]), is_colour=True)


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


def _read_orientation(image: Image.Image | None) -> int:
    if image is None:
        return 1
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
    if image.has_transparency_data:
        notes.add("alpha")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _read_grey16(image: Image.Image) -> NDArray[np.uint16]:
    values = np.array(image)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage("unsupported_depth", "The image has 32 bits per pixel; 8 or 16 are read.")
    return values.astype(np.uint16)[:, :, None]


def _corrupt(error: Exception) -> BadImage:
    reason = str(error)[:200].strip(" .") or type(error).__name__
    return BadImage("corrupt", f"The image is damaged or cut short: {reason}.")

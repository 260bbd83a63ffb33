"""TIFF files with more than 8 bits or other channels than greys and colours, read by tifffile.

Strips or tiles are decoded into arrays of their declared size, which is checked first; damaged files raise BadImage.
"""

import io
import logging
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import tifffile
from numpy.typing import NDArray

from ssl_core.data.formats.samples import MAX_CHANNELS, BadImage, Samples, check_size, too_many_channels

# Whose decoders write no more than the declared size: none, LZW, deflate, PackBits, LZMA, Zstandard.
_COMPRESSIONS = {1, 5, 8, 32946, 32773, 34925, 50000}
T = TypeVar("T")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNSPECIFIED, _PREMULTIPLIED, _ALPHA = 0, 1, 2
_MAX_IFD_BYTES = 2**24

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the reasons are in BadImage


def read(data: bytes, max_pixels: float, page: int = 0) -> Samples:
    """Return a page of the file; the orientation tag is not applied. Raises BadImage."""
    return _guard(lambda file: _read_page(_page(file, page), max_pixels, len(data)), data)


def measure(data: bytes, max_pixels: float) -> int:
    """Return the first page's size in pixels of up to 4 bytes, without decoding. Raises BadImage."""
    return _guard(lambda file: _check(_page(file), max_pixels, len(data)), data)


def orientation(data: bytes) -> int:
    """Return the first page's orientation tag, 1 without one. Raises BadImage."""
    return _guard(lambda file: _orientation(_page(file)), data)


def encode(values: NDArray) -> bytes:
    """Return H×W×C values as a TIFF file, compressed losslessly; equal arrays give equal bytes.

    Raises BadImage when there are more than MAX_CHANNELS.
    """
    channels = values.shape[2]
    if channels > MAX_CHANNELS:
        raise too_many_channels(channels, "image")
    target = io.BytesIO()
    tifffile.imwrite(
        target,
        np.ascontiguousarray(values if channels > 1 else values[:, :, 0]),
        photometric="rgb" if channels == 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=None if channels in (1, 3) else [_UNSPECIFIED] * (channels - 1),
        compression="zlib",
        compressionargs={"level": 1},
        metadata=None,
        software=False,
        byteorder="<",
    )
    return target.getvalue()


def _guard(work: Callable[[tifffile.TiffFile], T], data: bytes) -> T:
    try:
        with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as file:
            return work(file)
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # of damaged files nearly any
        reason = str(error)[:200].strip(" .") or type(error).__name__
        raise BadImage("corrupt", f"The image is damaged or cut short: {reason}.") from error


def _page(file: tifffile.TiffFile, number: int = 0) -> tifffile.TiffPage:
    page = file.pages[number]
    assert isinstance(page, tifffile.TiffPage)
    return page


def _read_page(page: tifffile.TiffPage, max_pixels: float, size: int) -> Samples:
    _check(page, max_pixels, size)
    values = page.asarray(maxworkers=1)
    values = np.moveaxis(values, 0, 2) if values.ndim == 3 and page.planarconfig == 2 else values
    values = values.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    extras = _extras(page)
    alpha, premultiplied = None, False
    base = page.samplesperpixel - len(extras)
    if len(extras) == 1 and extras[0] in (_PREMULTIPLIED, _ALPHA) and base in (1, 3) and values.dtype.kind == "u":
        alpha, premultiplied = np.ascontiguousarray(values[:, :, base]), extras[0] == _PREMULTIPLIED
        values = values[:, :, :base]
    if values.shape[2] > MAX_CHANNELS:
        raise too_many_channels(values.shape[2], "TIFF")
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * 255
    is_inverted = page.photometric == _WHITE_IS_ZERO
    if is_inverted and values.dtype == np.uint8:
        values, is_inverted = 255 - values, False
    return Samples(
        np.ascontiguousarray(values),
        is_inverted,
        is_colour=page.photometric == _RGB,
        alpha=alpha,
        is_premultiplied=premultiplied,
        missing=_find_missing(page, values),
    )


def _check(page: tifffile.TiffPage, max_pixels: float, size: int) -> int:
    dtype = page.dtype
    if page.samplesperpixel > MAX_CHANNELS + 1:
        raise too_many_channels(page.samplesperpixel, "TIFF")
    if dtype is None or dtype.kind not in "buif":
        raise BadImage("unsupported_depth", f"The TIFF has samples of an unknown kind, of {page.bitspersample} bits.")
    cost = check_size(page.imagewidth, page.imagelength, page.samplesperpixel, dtype.itemsize, max_pixels)
    if page.imagedepth != 1:
        raise BadImage("unsupported_depth", "The TIFF has a volume; images of one plane are read.")
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        name = getattr(page.photometric, "name", page.photometric)
        raise BadImage("unsupported_colours", f"The TIFF has colours of the kind {name}, read at 8 bits only.")
    if page.compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        detail = f"The TIFF is compressed by {name}; deep ones are read uncompressed, or by LZW, deflate, PackBits,"
        raise BadImage("unsupported_compression", f"{detail} LZMA or Zstandard.")
    _check_segments(page, size, dtype.itemsize)
    return cost


def _check_segments(page: tifffile.TiffPage, size: int, value_bytes: int) -> None:
    """Check that all strips or tiles are there, and that a tile is no larger than the image needs."""
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    if page.is_tiled:
        needed = (-(-page.imagewidth // 16) * 16 + 1024) * (-(-page.imagelength // 16) * 16 + 1024)
        if not 0 < page.tilewidth * page.tilelength <= needed or page.tiledepth != 1:
            raise BadImage("corrupt", "The image is damaged: its tiles are larger than itself.")
    count = math.prod(page.chunked)
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < count or len(counts) < count:
        raise BadImage("corrupt", f"The image is damaged or cut short: it has {len(counts)} of {count} parts.")
    for offset, length in zip(offsets[:count], counts[:count], strict=True):
        if (length or not page.is_tiled) and (length <= 0 or offset <= 0 or offset + length > size):
            raise BadImage("corrupt", "The image is damaged or cut short: a part lies beyond the end of the file.")
    if page.compression == 1:
        bits = page.bitspersample if isinstance(page.bitspersample, int) else 8 * value_bytes
        stored = page.imagewidth * page.imagelength * samples * bits // 8
        stored *= page.samplesperpixel // samples
        if not page.is_tiled and sum(counts[:count]) < stored:
            raise BadImage("corrupt", "The image is damaged or cut short: its parts are too short.")


def _extras(page: tifffile.TiffPage) -> tuple[int, ...]:
    """The kinds of the samples beyond grey or colour; without a tag the fourth of a colour image is alpha."""
    base = 3 if page.photometric == _RGB else 1
    found = tuple(int(kind) for kind in page.extrasamples or ())
    count = page.samplesperpixel - base
    if not found and count == 1 and base == 3:
        return (_ALPHA,)
    return (*found, *(_UNSPECIFIED,) * count)[:count]


def _find_missing(page: tifffile.TiffPage, values: NDArray) -> NDArray[np.bool_] | None:
    """Where the values are GDAL's "no data"; None without any."""
    if 42113 not in page.tags or values.dtype.kind == "b" or values.dtype == np.uint8:
        return None
    nodata = page.nodata
    with np.errstate(all="ignore"):
        missing = values == np.asarray(nodata).astype(values.dtype)
    return missing if missing.any() else None


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(274)
    return int(tag.value) if tag is not None and isinstance(tag.value, int) else 1

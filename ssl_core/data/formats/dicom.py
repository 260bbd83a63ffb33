"""DICOM images, read by pydicom (the extra `dicom`): uncompressed or RLE, values rescaled to Hounsfield units."""

import io
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ssl_core.data.formats.samples import BadImage, Samples, check_size

T = TypeVar("T")
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # may unpack to any size
_MAX_BYTES_BEFORE_PIXELS = 4096
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5")


def read(data: bytes, max_pixels: float, page: int = 0) -> Samples:
    """Return a frame of the file. Raises BadImage."""
    return _guard(lambda image: _read_frame(image, max_pixels, page), data)


def measure(data: bytes, max_pixels: float) -> int:
    """Return the size of all frames in pixels of up to 4 bytes, without decoding. Raises BadImage."""
    return _guard(lambda image: _check(image, max_pixels), data)


def orientation(data: bytes) -> int:
    """Return 1: DICOM has no orientation tag."""
    return 1


def count_frames(data: bytes) -> int:
    """Return the number of frames. Raises BadImage."""
    return _guard(_frames, data)


def _guard(work: Callable[[Dataset], T], data: bytes) -> T:
    if _DEFLATED in data[:_MAX_BYTES_BEFORE_PIXELS]:
        raise BadImage("unsupported_compression", "The DICOM file is deflated; uncompressed and RLE ones are read.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work(pydicom.dcmread(io.BytesIO(data)))
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # of damaged files nearly any
        reason = str(error)[:200].strip(" .") or type(error).__name__
        raise BadImage("corrupt", f"The image is damaged or cut short: {reason}.") from error


def _frames(image: Dataset) -> int:
    return max(1, int(image.get("NumberOfFrames", 1) or 1))


def _check(image: Dataset, max_pixels: float) -> int:
    syntax = image.file_meta.TransferSyntaxUID
    if syntax not in _PLAIN:
        detail = f"The DICOM file is compressed by {syntax.name}; uncompressed and RLE ones are read."
        raise BadImage("unsupported_compression", detail)
    if image.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2", "RGB"):
        detail = f"The DICOM file has colours of the kind {image.PhotometricInterpretation}; greys and RGB are read."
        raise BadImage("unsupported_colours", detail)
    width, height, samples = int(image.Columns), int(image.Rows), int(image.SamplesPerPixel)
    # pydicom decodes all frames, and rescaled values are floats.
    return check_size(width, height * _frames(image), samples, max(4, int(image.BitsAllocated) // 8), max_pixels)


def _read_frame(image: Dataset, max_pixels: float, page: int) -> Samples:
    _check(image, max_pixels)
    shape = (_frames(image), int(image.Rows), int(image.Columns), int(image.SamplesPerPixel))
    raw = image.pixel_array.reshape(shape)[page]
    if shape[3] == 3:
        return Samples(raw, is_colour=True)
    slope, intercept = float(image.get("RescaleSlope", 1) or 1), float(image.get("RescaleIntercept", 0) or 0)
    padding = image.get("PixelPaddingValue")
    missing = raw == padding if isinstance(padding, int) else None
    values = _rescale(raw, slope, intercept)
    is_inverted = image.PhotometricInterpretation == "MONOCHROME1"
    if is_inverted and values.dtype == np.uint8:
        values, is_inverted = 255 - values, False
    return Samples(values, is_inverted, missing=missing if values.dtype != np.uint8 else None)


def _rescale(raw: NDArray, slope: float, intercept: float) -> NDArray:
    """Stored values as the quantity that they stand for; 16-bit integers where these hold it."""
    if (slope, intercept) == (1, 0):
        return raw
    values = raw * np.float32(slope) + np.float32(intercept)
    fits = slope.is_integer() and intercept.is_integer() and values.min() >= -(2**15) and values.max() < 2**15
    return values.astype(np.int16) if fits else values

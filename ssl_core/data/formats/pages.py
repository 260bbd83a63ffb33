"""The pages of a file, TIFF's and the frames of animations, as images of their own or as channels of one."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_core.data import decode
from ssl_core.data.formats import tiff_pages
from ssl_core.data.formats.samples import MAX_CHANNELS, BadImage, check_size, too_many_channels


def split(data: bytes, max_pixels: float) -> Iterator[bytes]:
    """Yield each page as a file of its own, losslessly; the file as it is when it has one. Raises BadImage."""
    numbers = _find(data, max_pixels)
    if len(numbers) == 1:
        yield data
        return
    if len(numbers) > tiff_pages.MAX_PAGES:
        raise BadImage("too_many_pages", f"The file has more than {tiff_pages.MAX_PAGES:,} pages.")
    for page in _read_all(data, numbers, max_pixels):
        yield decode.encode_array(page)


def stack(data: bytes, max_pixels: float) -> bytes:
    """Return one file whose channels are those of all pages; one page as it is. Raises BadImage."""
    numbers = _find(data, max_pixels)
    if len(numbers) == 1:
        return data
    if len(numbers) > MAX_CHANNELS:
        raise too_many_channels(len(numbers), "file's stack of pages")
    pages: list[NDArray] = []
    for page in _read_all(data, numbers, max_pixels / len(numbers)):
        if pages and (page.shape[:2] != pages[0].shape[:2] or page.dtype != pages[0].dtype):
            raise BadImage("pages_differ", "The pages have different sizes or depths, and cannot be channels.")
        pages.append(page)
    return decode.encode_array(np.concatenate(pages, axis=2))


def _find(data: bytes, max_pixels: float) -> list[int]:
    image = decode.open_header(data, max_pixels)
    if image is not None and image.format == "TIFF":
        return tiff_pages.find(data)
    if image is None:
        return tiff_pages.find(data) if data[:2] in (b"II", b"MM") else list(range(decode.count_pages(data)))
    return list(range(decode.count_pages(data, image)))


def _read_all(data: bytes, numbers: Sequence[int], max_pixels: float) -> Iterator[NDArray]:
    """Each page's values, H×W×C, with white as their highest value."""
    image = decode.open_header(data, max_pixels)
    is_deep = decode.is_deep_tiff(image)
    for number in numbers:
        if is_deep:
            yield _read_deep(data, number, max_pixels)
            continue
        assert image is not None
        try:  # of one open image, as an animation is decoded from its first frame on
            yield _read_frame(image, number, max_pixels)
        except (MemoryError, BadImage):
            raise
        except Exception as error:  # of damaged files nearly any
            raise BadImage("corrupt", f"Page {number + 1} is damaged: {str(error)[:200].strip(' .')}.") from error


def _read_deep(data: bytes, number: int, max_pixels: float) -> NDArray:
    samples = decode.reader_of(data).read(data, max_pixels, number)
    values = samples.values
    if samples.is_inverted:
        values = np.iinfo(values.dtype).max - values if values.dtype.kind in "iu" else -values
    return values


def _read_frame(image: Image.Image, number: int, max_pixels: float) -> NDArray:
    image.seek(number)
    check_size(*image.size, len(image.getbands()), 1, max_pixels)
    image.load()
    samples = decode.convert(image, set())
    is_grey = image.mode in ("1", "L") and not samples.is_deep
    return samples.values[:, :, :1] if is_grey else samples.values

"""Samples: the values of an image as its file has them, before they are scaled to 8 bits."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MAX_CHANNELS = 16
_LUMA = np.array([19595, 38470, 7471], np.uint32)  # of 65536, as Pillow has them
_STRIP_VALUES = 2**22


class BadImage(Exception):
    """Raised for bytes that cannot be decoded as an image; `code` and `detail` give the reason."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


@dataclass(frozen=True)
class Samples:
    """`values` are H×W×C of integers or floats; uint8 values are pixels already."""

    values: NDArray
    is_inverted: bool = False  # the lowest value is white
    is_colour: bool = False  # the first three channels are red, green and blue
    alpha: NDArray | None = None  # H×W, unsigned, not in `values`
    is_premultiplied: bool = False
    missing: NDArray[np.bool_] | None = None  # H×W×C: values that mean "no data"

    @property
    def is_deep(self) -> bool:
        """Whether the values have to be scaled."""
        return self.values.dtype != np.uint8

    @property
    def channels(self) -> int:
        """The number of channels that the image has in a dataset: 3 for greys and colours."""
        return 3 if self.values.shape[2] == 1 else int(self.values.shape[2])

    def oriented(self, orientation: int) -> "Samples":
        """Return the image upright, by its orientation tag of 2 to 8."""
        turn = _TURNS[orientation]
        return replace(
            self,
            values=turn(self.values),
            alpha=None if self.alpha is None else turn(self.alpha),
            missing=None if self.missing is None else turn(self.missing),
        )


_TURNS: dict[int, Callable[[NDArray], NDArray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def check_size(width: int, height: int, channels: int, value_bytes: int, max_pixels: float) -> int:
    """Return the size in pixels of 4 bytes, at least width×height. Raises BadImage.

    Checked before values are decoded: they take at most 4 bytes for each of `max_pixels`.
    """
    if width < 1 or height < 1 or channels < 1:
        raise BadImage("no_pixels", "The image has no pixels.")
    if channels > MAX_CHANNELS + 1:  # one may be alpha
        raise too_many_channels(channels, "image")
    cost = width * height * max(1, -(-channels * value_bytes // 4))
    if cost > max_pixels:
        shape = f"{width:,}×{height:,} pixels" + (f" of {channels * value_bytes} bytes" if value_bytes > 1 else "")
        raise BadImage("too_many_pixels", f"The image has {shape}; at most {max_pixels:,} of 4 bytes are read.")
    return cost


def too_many_channels(channels: int, kind: str) -> BadImage:
    detail = f"The {kind} has {channels} channels (bands); at most {MAX_CHANNELS} are read."
    return BadImage("too_many_channels", detail)


def fit_channels(pixels: NDArray[np.uint8], channels: int | None, *, is_colour: bool = True) -> NDArray[np.uint8]:
    """Return H×W×C pixels with `channels`; None keeps them, with greys as RGB. Raises BadImage.

    is_colour: whether channels beyond the first three of a colour image may be left out for `channels` 3.
    """
    have = pixels.shape[2]
    if channels == have or (channels is None and have != 1):
        return pixels
    if have == 1 and channels in (None, 3):
        return np.repeat(pixels, 3, axis=2)
    if have > 3 and channels == 3 and is_colour:
        return np.ascontiguousarray(pixels[:, :, :3])
    if have == 3 and channels == 1:
        return _luma(pixels)
    taken = f"{channels} channel{'s' * (channels != 1)}"
    raise BadImage("channels_differ", f"Images of {taken} are taken here; this has {have}.")


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = np.empty((*pixels.shape[:2], 1), np.uint8)
    rows = max(1, _STRIP_VALUES // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        part = pixels[start : start + rows]
        grey[start : start + rows, :, 0] = (part @ _LUMA + 0x8000) >> 16
    return grey

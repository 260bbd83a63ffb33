"""Value ranges: which values of deep images become black and white in 8 bits, and how a dataset's range is found.

Unsigned integers have the smallest depth of 8, 10, 12, 14 or 16 bits that holds the 99.99th percentile; floats and
signed integers [0, 1], [-1, 1] or [0, 255] where their values lie within. Where the images use less than a quarter of
that, or fit none, the 0.1th and 99.9th percentiles are the range.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_core.data.formats.samples import BadImage, Samples

_DEPTHS = (8, 10, 12, 14, 16)
_IMAGE_PIXELS = 4096  # that are looked at in each image
_SAMPLE_VALUES = 2**22  # that are kept in memory: 32 MB
_USED = 0.25  # the least share of a range that is used
_STRIP_VALUES = 2**20
BIT_DEPTH, FIXED, PERCENTILES, STATED = "bit depth", "fixed", "percentiles", "stated"


@dataclass(frozen=True)
class ValueRange:
    """The values that become 0 and 255; one pair, or one for each channel."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> "ValueRange | None":
        """Return the range of `to_json`. Raises ValueError, TypeError or KeyError when it is none."""
        if record is None:
            return None
        low, high = (
            tuple(float(v) for v in (value if isinstance(value, list) else [value]))
            for value in (record["low"], record["high"])
        )
        if not low or len(low) != len(high) or not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError("A range has a low that is below its high.")
        return cls(low, high)

    def to_json(self) -> dict[str, Any]:
        """Return `{low, high}`: numbers, or lists with one for each channel."""
        if len(self.low) == 1:
            return {"low": _plain(self.low[0]), "high": _plain(self.high[0])}
        return {"low": [_plain(value) for value in self.low], "high": [_plain(value) for value in self.high]}

    def scale(self, samples: Samples) -> NDArray[np.uint8]:
        """Return the values as uint8 H×W×C, rounded half up. Raises BadImage for another number of channels.

        Values beyond the range become 0 or 255, missing and infinite ones black. Alpha is composited on white.
        """
        values = samples.values
        if not samples.is_deep:
            return values
        pixels = np.empty(values.shape, np.uint8)
        for channel in range(values.shape[2]):
            self._scale_channel(values[:, :, channel], channel, pixels[:, :, channel])
        if samples.is_inverted:
            np.subtract(255, pixels, out=pixels)
        if samples.missing is not None:
            pixels[samples.missing] = 0
        return pixels if samples.alpha is None else _composite(pixels, samples)

    def _scale_channel(self, values: NDArray, channel: int, out: NDArray[np.uint8]) -> None:
        if len(self.low) == 1:
            channel = 0
        elif channel >= len(self.low):
            raise BadImage("channels_differ", f"The image has more channels than the {len(self.low)} of the range.")
        low, high = self.low[channel], self.high[channel]
        if values.dtype in (np.uint16, np.int16):
            out[:] = _table(low, high, values.dtype.char)[values.view(np.uint16)]
            return
        rows = max(1, _STRIP_VALUES // max(1, values.shape[1]))
        for start in range(0, len(values), rows):
            out[start : start + rows] = _scale(values[start : start + rows].astype(np.float64), low, high)


FULL = ValueRange((0,), (65535,))  # of 16 bits; that of datasets and models from before ranges were stored


@dataclass(frozen=True)
class FoundRange:
    """A dataset's range, and for each of its pairs how it was found."""

    values: ValueRange
    sources: tuple[str, ...]
    is_unsigned: bool = False  # the values are

    @property
    def narrow(self) -> tuple[str, ...]:
        """The pairs that use little of the depth of unsigned integers, as text; signed values and floats have none."""
        pairs = zip(self.values.low, self.values.high, self.sources, strict=True)
        return tuple(f"{low:g} to {high:g}" for low, high, by in pairs if by == PERCENTILES and self.is_unsigned)

    def to_json(self) -> dict[str, Any]:
        """Return `{low, high, found_by}`."""
        found = self.sources[0] if len(set(self.sources)) == 1 else list(self.sources)
        return self.values.to_json() | {"found_by": found}


class RangeFinder:
    """Values of a dataset's deep images: of those with the lowest digests, so that their order does not matter."""

    def __init__(self) -> None:
        self._heap: list[tuple[bytes, bool, NDArray[np.float64]]] = []  # the negated digest first
        self._held: set[bytes] = set()
        self._dropped = b""  # the greatest key that was: what is not above it is not among the lowest digests
        self._size = 0
        self.images = 0

    def add(self, samples: Samples, digest: bytes) -> None:
        """Count in the values of an image; `digest` is of its file."""
        self.images += 1
        key = bytes(255 - byte for byte in digest)
        if key in self._held or key <= self._dropped:
            return
        values = _sample(samples)
        heapq.heappush(self._heap, (key, _is_unsigned(samples), values))
        self._held.add(key)
        self._size += values.size
        while self._size > _SAMPLE_VALUES and len(self._heap) > 1:
            dropped, _, values = heapq.heappop(self._heap)
            self._held.discard(dropped)
            self._dropped = dropped
            self._size -= values.size

    def find(self, channels: int) -> FoundRange:
        """Return the range of images with so many channels: one for greys and colours, else one for each channel."""
        unsigned = all(is_unsigned for _, is_unsigned, _ in self._heap)
        arrays = [values for *_, values in self._heap]
        if channels in (1, 3):
            columns = [np.concatenate([values.ravel() for values in arrays])]
        else:
            columns = [np.concatenate([values[:, channel] for values in arrays]) for channel in range(channels)]
        found = [_find(values[np.isfinite(values)], unsigned=unsigned) for values in columns]
        low, high, sources = zip(*found, strict=True)
        return FoundRange(ValueRange(low, high), sources, unsigned)


def stated(low: float, high: float) -> FoundRange:
    """Return the range that was asked for."""
    return FoundRange(ValueRange((low,), (high,)), (STATED,))


def own_range(samples: Samples) -> ValueRange:
    """Return the range of a single image, where no dataset has one. Raises BadImage.

    It is that of its bit depth, or [0, 1], [-1, 1] or [0, 255]: percentiles of one image would undo its brightness.
    """
    finite = samples.values[np.isfinite(samples.values)] if samples.values.dtype.kind == "f" else samples.values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    natural = _natural(low, high, unsigned=_is_unsigned(samples))
    if natural is None:
        detail = f"The image has values from {low:g} to {high:g}, and the range to scale them by is not known."
        raise BadImage("unsupported_depth", detail)
    return ValueRange((natural[0],), (natural[1],))


def _find(values: NDArray[np.float64], *, unsigned: bool) -> tuple[float, float, str]:
    if not values.size:
        return 0.0, 1.0, FIXED
    values = np.sort(values)
    least, low = (float(value) for value in np.percentile(values, (0.01, 0.1), method="lower"))
    high, most = (float(value) for value in np.percentile(values, (99.9, 99.99), method="higher"))
    natural = _natural(least, most, unsigned=unsigned)
    if natural is not None and (high == low or high - low >= _USED * (natural[1] - natural[0])):
        return *natural, BIT_DEPTH if unsigned else FIXED
    return low, high if high > low else max(low + 1, float(np.nextafter(low, np.inf))), PERCENTILES


def _natural(low: float, high: float, *, unsigned: bool) -> tuple[float, float] | None:
    """The range that values between `low` and `high` suggest by themselves."""
    if unsigned:
        return next(((0.0, 2.0**bits - 1) for bits in _DEPTHS if high <= 2**bits - 1), None)
    pairs: Sequence[tuple[float, float]] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
    return next((pair for pair in pairs if pair[0] <= low and high <= pair[1]), None)


def _is_unsigned(samples: Samples) -> bool:
    return samples.values.dtype.kind == "u"


def _sample(samples: Samples) -> NDArray[np.float64]:
    """Some pixels of the image, N×C, with NaN for missing values."""
    height, width, channels = samples.values.shape
    step = max(1, height * width // _IMAGE_PIXELS) | 1  # odd: no columns are left out
    places = np.arange(0, height * width, step)
    rows, columns = places // width, places % width
    values: NDArray[np.float64] = samples.values[rows, columns].astype(np.float64).reshape(-1, channels)
    if samples.missing is not None:
        values[samples.missing[rows, columns]] = np.nan
    return values


@lru_cache(64)
def _table(low: float, high: float, kind: str) -> NDArray[np.uint8]:
    """The pixel of each 16-bit value, by its bits."""
    return _scale(np.arange(2**16, dtype=np.uint16).view(kind).astype(np.float64), low, high)


def _scale(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    values = np.clip(np.where(np.isfinite(values), values, low), low, high)
    return np.floor_divide((values - low) * 255 + (high - low) / 2, high - low).clip(0, 255).astype(np.uint8)


def _composite(pixels: NDArray[np.uint8], samples: Samples) -> NDArray[np.uint8]:
    assert samples.alpha is not None
    most = int(np.iinfo(samples.alpha.dtype).max)
    for row, alpha in zip(pixels, samples.alpha, strict=True):
        a = alpha.astype(np.uint64)[:, None]
        colour = row.astype(np.uint64) * (most if samples.is_premultiplied else a)
        row[:] = np.minimum((colour + 255 * (most - a) + most // 2) // most, 255)
    return pixels


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value

"""Counter-based random numbers: pure functions of (seed, epoch, image, view, number of the draw).

SplitMix64 (Steele, Lea & Flood 2014) in torch's wrapping 64-bit integers: the same numbers on every device, in every
order and in every batch. No global generator is used.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1


class Stream(IntEnum):
    """The purpose of a draw. As a part of a stream's key it makes draws for different purposes independent.

    The values are fixed: resumed runs and reproduced results depend on them.
    """

    SUBSET = 0x73756273  # the images of a config's `subset`
    EPOCH = 0x65706F63  # the order of the images in an epoch
    TEST = 0x74657374  # the labelled images held out of the train split
    LABELS = 0x64726177  # the labelled images of a `label_fraction`
    NOISE = 0x6E6F6973  # a view's noise, as distinct from its crop, flip and colours
    STEP = 0x73746570  # dropout and other draws of torch in a training step
    ONLINE_PROBE = 0x6D6F6E69  # the images of the online probe
    ONLINE_ACCURACY = 0x6578616D  # the images on which a classifier is evaluated while it trains
    PROBE_VIEWS = 0x70726F62  # the views of an augmented linear evaluation
    BOOTSTRAP = 0x626F6F74  # the resamples of an accuracy's interval
    PROJECTION = 0x6D617073  # the images of a projection
    VIEW_GRID = 0x73656573  # the images of the view grid
    EXPORT = 0x6578706F  # the images on which an export is checked


def stream(*names: int) -> int:
    """Return a 64-bit key for a sequence of integers, such as (seed, epoch, view)."""
    key = 0
    for name in names:
        key = _mix_int((key + _GOLDEN + _mix_int(name & _WORD)) & _WORD)
    return key


def keys(base: int, indices: Tensor) -> Tensor:
    """Return one key for each index (int64, any shape) under a `stream`."""
    return _mix(indices * _signed(_GOLDEN) + _signed(base))


def uniforms(keys: Tensor, count: int) -> Tensor:
    """Return float64 N×count on [0, 1): the first draws of each key."""
    return _shift(_words(keys, count), 11).double() * 2.0**-53


def normals(keys: Tensor, count: int) -> Tensor:
    """Return float32 N×count from the standard normal distribution (Box-Muller on the halves of each word)."""
    words = _words(keys, (count + 1) // 2)
    radius = torch.log(_shift(words, 32).add_(1).float().mul_(2.0**-32)).mul_(-2).sqrt_()
    angle = (words & 0xFFFFFFFF).float().mul_(2.0**-32 * 2 * math.pi)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)[:, :count]


def permutation(base: int, length: int) -> Tensor:
    """Return int64 0 … length-1 in a random order, a function of the `stream`."""
    return torch.sort(keys(base, torch.arange(length)), stable=True).indices


def _words(keys: Tensor, count: int) -> Tensor:
    """Random 64-bit words, N×count."""
    steps = torch.arange(1, count + 1, device=keys.device) * _signed(_GOLDEN)
    return _mix(keys[:, None] + steps)


def _mix(word: Tensor) -> Tensor:
    word = (word ^ _shift(word, 30)) * _signed(_FIRST)
    word = (word ^ _shift(word, 27)) * _signed(_SECOND)
    return word ^ _shift(word, 31)


def _mix_int(word: int) -> int:
    word = ((word ^ (word >> 30)) * _FIRST) & _WORD
    word = ((word ^ (word >> 27)) * _SECOND) & _WORD
    return word ^ (word >> 31)


def _shift(word: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's `>>` repeats the sign."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word

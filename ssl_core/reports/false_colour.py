"""False colour: images of any number of channels, as figures show them."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ssl_core.config.views import RGB

T = TypeVar("T", bound=np.generic)


def to_rgb(images: NDArray[T]) -> NDArray[T]:
    """Return …×3 of images …×C: the first three channels as red, green and blue; of one or two the first as grey."""
    return images[..., :RGB] if images.shape[-1] >= RGB else np.repeat(images[..., :1], RGB, axis=-1)


def describe(channels: int) -> str:
    """Return the sentence for a figure's note; empty for RGB."""
    if channels in (1, RGB):
        return ""
    return f" Shown: the first {'of' if channels < RGB else f'{RGB} of'} {channels} channels."

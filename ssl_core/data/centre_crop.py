"""Centre crop: the largest central square of an image, resized to the encoder's image size.

Used by evaluation, the encoder server and the export. It equals resizing the shorter side and cropping the
centre, in one antialiased step.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def centre_crop(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return uint8 side×side×C of an image uint8 H×W×C."""
    height, width = image.shape[:2]
    if height == width == side:
        return image
    square = min(height, width)
    left, top = (width - square) / 2, (height - square) / 2
    box = (left, top, left + square, top + square)
    return resize(image, (side, side), box)


def resize(
    image: NDArray[np.uint8], size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    """Return the image, or a box of it (left, top, right, bottom), at another size (width, height), uint8 H×W×C."""
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))
    channels = (Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(image, 2, 0))
    resized = [np.asarray(channel.resize(size, Image.Resampling.BILINEAR, box=box)) for channel in channels]
    return np.stack(resized, axis=2)

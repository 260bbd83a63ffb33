"""Centre crop: the largest central square of an image, resized to the encoder's image size.

Used by evaluation, the encoder server and the export. It equals resizing the shorter side and cropping the
centre, in one antialiased step.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def centre_crop(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return uint8 side×side×3 of an image uint8 H×W×3."""
    height, width = image.shape[:2]
    if height == width == side:
        return image
    square = min(height, width)
    left, top = (width - square) / 2, (height - square) / 2
    box = (left, top, left + square, top + square)
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)

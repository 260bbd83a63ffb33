"""Pictures: small image files, made for the tests; equal arguments give equal bytes."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(seed: int = 0, width: int = 12, height: int = 8) -> NDArray[np.uint8]:
    """Return uint8 H×W×3, a smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def png(seed: int = 0, width: int = 12, height: int = 8) -> bytes:
    return encoded(Image.fromarray(pixels(seed, width, height)))


def jpeg(seed: int = 0, width: int = 12, height: int = 8) -> bytes:
    return encoded(Image.fromarray(pixels(seed, width, height)), "JPEG", quality=90)

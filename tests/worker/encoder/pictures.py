"""Image files for tests: seeded smooth noise, which survives JPEG, in many formats."""

import io

import numpy as np
from PIL import Image


def pixels(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """Return an image of smooth noise, uint8 H×W×3."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(seed: int, height: int = 40, width: int = 48) -> bytes:
    return encoded(Image.fromarray(pixels(seed, height, width)), "PNG")


def formats(seed: int) -> dict[str, bytes]:
    """Return the same image in every supported format, by name."""
    picture = Image.fromarray(pixels(seed))
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    rotated = Image.Exif()
    rotated[0x0112] = 6
    return {
        "png": encoded(picture, "PNG"),
        "jpeg": encoded(picture, "JPEG", quality=95),
        "jpeg, cmyk": encoded(picture.convert("CMYK"), "JPEG", quality=95),
        "jpeg, rotated": encoded(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=rotated),
        "webp": encoded(picture, "WEBP", lossless=True),
        "bmp": encoded(picture, "BMP"),
        "tiff": encoded(picture, "TIFF"),
        "png, palette": encoded(picture.quantize(256), "PNG"),
        "gif": encoded(picture.quantize(256), "GIF"),
        "png, alpha": encoded(picture.convert("RGBA"), "PNG"),
        "png, grey": encoded(picture.convert("L"), "PNG"),
        "png, 16-bit grey": encoded(Image.fromarray(grey), "PNG"),
    }

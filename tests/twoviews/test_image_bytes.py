"""Images of a program as image files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from twoviews import image_bytes

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def decode(image):
    return np.asarray(Image.open(io.BytesIO(image_bytes.read(image))))


@pytest.mark.parametrize("array", [PIXELS, PIXELS[..., 0], PIXELS[:, ::-1], PIXELS.transpose(1, 0, 2)])
def test_arrays_and_pillow_images_keep_their_pixels(array):
    assert np.array_equal(decode(array), array)
    assert np.array_equal(decode(Image.fromarray(np.ascontiguousarray(array))), array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_images_are_upright_as_the_service_reads_their_files(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    assert np.array_equal(decode(Image.open(tmp_path / "a.png")), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBa"])
def test_other_pillow_modes_of_8_bits_keep_their_colours(mode):
    image = Image.new("RGB", (4, 4), (200, 10, 10)).convert("RGBA" if mode == "RGBa" else "RGB").convert(mode)
    assert np.abs(decode(image)[0, 0, :3].astype(int) - (200, 10, 10)).max() <= 6
    translucent = Image.new("RGBA", (4, 4), (200, 10, 10, 60)).convert("RGBa")
    assert decode(translucent)[0, 0, 3] == 60


@pytest.mark.parametrize("mode", ["I", "F", "I;16B", "La"])
def test_pillow_modes_that_would_lose_bits_are_refused(mode):
    with pytest.raises(TypeError, match=f"mode {mode}; send its file"):
        image_bytes.read(Image.new(mode, (4, 4)))


def test_one_image_is_a_list_of_it_and_a_batch_its_images(tmp_path):
    for one in ("cat.png", Path("cat.png"), b"bytes", PIXELS, PIXELS[..., 0], Image.fromarray(PIXELS)):
        (only,) = image_bytes.as_images(one)
        assert only is one
    assert [decode(each).tolist() for each in image_bytes.as_images(np.stack([PIXELS, PIXELS[::-1]]))] == [
        PIXELS.tolist(),
        PIXELS[::-1].tolist(),
    ]
    several = ["a.png", b"b"]
    assert image_bytes.as_images(several) is several
    assert image_bytes.read(bytearray(b"x")) == b"x"
    (tmp_path / "a.png").write_bytes(b"y")
    assert image_bytes.read(str(tmp_path / "a.png")) == b"y"


@pytest.mark.parametrize("wrong", [PIXELS.astype(np.float32), PIXELS[..., :2], PIXELS[0, 0], PIXELS[:0], 3, None])
def test_what_is_no_image_is_a_type_error_that_says_what_is_one(wrong):
    with pytest.raises(TypeError, match=r"not an image: .* a path, the bytes of a file"):
        image_bytes.read(wrong)


def test_what_is_no_iterable_is_a_type_error():
    with pytest.raises(TypeError, match="not images: int; an image is a path"):
        image_bytes.as_images(3)

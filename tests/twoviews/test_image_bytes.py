"""Images of a program as image files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twoviews import image_bytes

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def decode(image):
    return np.asarray(Image.open(io.BytesIO(image_bytes.read(image))))


@pytest.mark.parametrize("array", [PIXELS, PIXELS[..., 0], PIXELS[:, ::-1], PIXELS.transpose(1, 0, 2)])
def test_arrays_and_pillow_images_keep_their_pixels(array):
    assert np.array_equal(decode(array), array)
    assert np.array_equal(decode(Image.fromarray(np.ascontiguousarray(array))), array)


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

"""Image decoding: formats, colour models, orientation, damaged files."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from ssl_core.data.decode import BadImage, decode, decode_with_notes, encode_png
from tests.pictures import encoded, jpeg, pixels, png

RED, WHITE = (255, 0, 0), (255, 255, 255)


def with_orientation(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(pixels()), kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_every_format_becomes_rgb(kind):
    image = decode(encoded(Image.fromarray(pixels()), kind))
    assert image.shape == (8, 12, 3)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    if kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert np.array_equal(image, pixels())


def test_plain_rgb_has_no_notes():
    assert decode_with_notes(jpeg())[1] == set()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_is_applied(kind, orientation):
    image, notes = decode_with_notes(with_orientation(orientation, kind))
    raw = Image.fromarray(decode(with_orientation(1, kind)))
    raw.getexif()[0x0112] = orientation
    assert np.array_equal(image, np.array(ImageOps.exif_transpose(raw)))
    assert notes == {"orientation"}


def test_16_bit_grey_is_scaled():
    values = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    image, notes = decode_with_notes(encoded(Image.fromarray(values)))
    assert image[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert notes == {"grey16", "grey"}


def test_16_bit_portable_grey_map_is_scaled():
    image, notes = decode_with_notes(b"P5 2 1 65535 " + np.array([0, 65535], ">u2").tobytes())
    assert image[0, :, 0].tolist() == [0, 255]
    assert "grey16" in notes


def test_grey_gets_three_equal_channels():
    image, notes = decode_with_notes(encoded(Image.fromarray(pixels()[:, :, 0])))
    assert np.array_equal(image, np.repeat(pixels()[:, :, :1], 3, axis=2))
    assert notes == {"grey"}


def test_bilevel_becomes_black_and_white():
    image, notes = decode_with_notes(encoded(Image.new("1", (2, 2), 1)))
    assert (image == 255).all()
    assert notes == {"grey"}


def test_cmyk_is_converted():
    image, notes = decode_with_notes(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"))
    assert tuple(image[0, 0]) == RED
    assert notes == {"cmyk"}


def test_palette_is_looked_up():
    image, notes = decode_with_notes(encoded(Image.new("RGB", (4, 4), RED).quantize(4)))
    assert tuple(image[0, 0]) == RED
    assert notes == {"palette"}


@pytest.mark.parametrize(("colour", "expected"), [((*RED, 255), RED), ((*RED, 0), WHITE), ((0, 0, 0, 102), (153,) * 3)])
def test_alpha_is_composited_on_white(colour, expected):
    image, notes = decode_with_notes(encoded(Image.new("RGBA", (2, 2), colour)))
    assert tuple(image[0, 0]) == expected
    assert notes == {"alpha"}


def test_transparent_palette_entry_becomes_white():
    red = Image.new("RGB", (2, 2), RED).quantize(4)
    image, notes = decode_with_notes(encoded(red, transparency=red.getpixel((0, 0))))
    assert tuple(image[0, 0]) == WHITE
    assert notes == {"alpha", "palette"}


def test_grey_with_alpha_is_composited_too():
    image, notes = decode_with_notes(encoded(Image.new("LA", (2, 2), (0, 0))))
    assert tuple(image[0, 0]) == WHITE
    assert notes == {"alpha", "grey"}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_is_taken(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, WHITE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    image, notes = decode_with_notes(data)
    assert tuple(image[0, 0]) == RED
    assert "animated" in notes


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_does_not_prevent_decoding():
    exif = b"Exif\0\0MM\0*\xff\xff\xff\xff"
    assert decode(encoded(Image.fromarray(pixels()), "JPEG", exif=exif)).shape == (8, 12, 3)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"hello, I am no image", "not_an_image"),
        (jpeg()[: len(jpeg()) // 2], "corrupt"),
        (png()[:-40], "corrupt"),
        (b"P6 0 4 255 ", "not_an_image"),
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "unsupported_depth"),
        (encoded(Image.new("I", (2, 2), 70_000), "TIFF"), "unsupported_depth"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
    ],
)
def test_unreadable_bytes_raise_a_code_and_a_sentence(data, code):
    with pytest.raises(BadImage) as caught:
        decode(data)
    assert caught.value.code == code
    assert caught.value.detail.endswith(".")


def test_too_many_pixels_are_refused_before_any_is_decoded():
    bomb = bytearray(encoded(Image.new("1", (8, 8))))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # the header's width and height; its checksum is now wrong as well
    with pytest.raises(BadImage) as caught:
        decode(encoded(Image.new("1", (200, 100))), max_pixels=10_000)
    assert caught.value.code == "too_many_pixels"
    with pytest.raises(BadImage):
        decode(bytes(bomb))


def test_a_jpeg_of_many_scans_is_refused_and_bytes_after_its_end_do_not_count():
    data = encoded(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    *_, last = data[:-2].split(b"\xff\xda")
    scan = b"\xff\xda" + last
    assert decode(data[:-2] + 20 * scan + data[-2:] + 200 * scan).shape == (64, 64, 3)
    with pytest.raises(BadImage) as caught:
        decode(data[:-2] + 200 * scan + data[-2:])
    assert caught.value.code == "too_many_scans"


def test_pillows_own_limit_raises_the_same_code():
    with pytest.raises(BadImage) as caught:
        decode(b"P6 100000 100000 255 ")
    assert caught.value.code == "too_many_pixels"


def test_png_round_trip_is_exact_and_repeatable():
    assert np.array_equal(decode(encode_png(pixels())), pixels())
    assert encode_png(pixels()) == encode_png(pixels())


def test_bytes_of_any_damage_give_pixels_or_a_bad_image():
    generator = np.random.default_rng(0)
    good = [
        encoded(Image.fromarray(pixels()), kind) for kind in ("PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP", "JPEG2000")
    ]
    refused = 0
    for round_ in range(350):
        data = bytearray(good[round_ % len(good)])
        for place in generator.integers(0, len(data), 4):
            data[place] = generator.integers(0, 256)
        try:
            assert decode(bytes(data), max_pixels=10**6).dtype == np.uint8
        except BadImage:
            refused += 1
    assert refused > 50

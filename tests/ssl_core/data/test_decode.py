"""Image decoding: formats, colour models, orientation, damaged files."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from ssl_core.data.centre_crop import centre_crop
from ssl_core.data.decode import (
    COSTLY_FORMATS,
    BadImage,
    count_pixels,
    decode,
    decode_square,
    decode_with_notes,
    encode_png,
)
from tests.pictures import encoded, jpeg, pixels, png
from tests.worker.encoder import pictures

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
        (encoded(Image.new("F", (2, 2), 5e5), "TIFF"), "unsupported_depth"),
        (encoded(Image.new("I", (2, 2), -70_000), "TIFF"), "unsupported_depth"),
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


def large(mode: str, kind: str, **options: object) -> bytes:
    """Return 700×500 pixels of smooth noise, whose central square at side 16 is reduced by 7."""
    image = Image.fromarray(pictures.pixels(1, 500, 700))
    if mode == "I;16":
        return encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), kind)
    if mode == "RGBA":
        image.putalpha(image.getchannel("R"))
    return encoded(image.quantize(64) if mode == "P" else image.convert(mode), kind, **options)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, "PNG") for mode in ("1", "L", "P", "RGB", "RGBA", "I;16")]
    + [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("RGB", "TIFF"), ("RGB", "AVIF")],
)
def test_a_reduced_square_is_that_of_the_whole_image_within_rounding(mode, kind):
    file = large(mode, kind)
    difference = decode_square(file, 16).astype(int) - centre_crop(decode(file), 16)
    assert np.abs(difference).mean() < 1
    assert np.abs(difference).max() < 6


def test_a_square_that_needs_no_reduction_is_the_same():
    for file in (png(), large("RGB", "JPEG")):
        assert np.array_equal(decode_square(file, 200), centre_crop(decode(file), 200))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_a_reduced_square_is_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = large("RGB", kind, exif=exif)
    difference = decode_square(file, 16).astype(int) - centre_crop(decode(file), 16)
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize(("side", "shape"), [(None, (450, 800)), (800, (450, 800)), (200, (113, 200)), (90, (57, 100))])
def test_an_image_is_reduced_to_no_less_than_a_side_while_it_is_decoded(side, shape):
    for data in (jpeg(1, 800, 450), png(1, 800, 450), encoded(Image.fromarray(pixels(1, 800, 450)).convert("P"))):
        found = decode(data, side=side)
        assert found.shape == (*shape, 3)
        whole = Image.fromarray(decode(data)).resize(shape[::-1], Image.Resampling.BOX)
        assert np.abs(found.astype(int) - np.asarray(whole)).mean() < 2


def test_pixels_are_counted_without_decoding():
    file = large("RGB", "PNG")
    assert count_pixels(file[:200]) == 350_000
    for cut, code in ((b"", "empty"), (b"rubbish", "not_an_image")):
        with pytest.raises(BadImage) as bad:
            count_pixels(cut)
        assert bad.value.code == code
    assert count_pixels(file, max_costly_pixels=1) == 350_000
    with pytest.raises(BadImage) as bad:
        decode_square(file[:2000], 16)
    assert bad.value.code == "corrupt"
    with pytest.raises(BadImage) as bad:
        decode_square(file, 16, max_pixels=349_999)
    assert bad.value.code == "too_many_pixels"


@pytest.mark.parametrize("kind", [kind for kind in COSTLY_FORMATS if kind != "HEIF"])
def test_a_format_with_a_costly_decoder_has_a_limit_of_its_own(kind):
    file = encoded(Image.new("RGB", (40, 30)), kind)
    assert count_pixels(file, max_costly_pixels=1200) == 1200
    with pytest.raises(BadImage) as bad:
        count_pixels(file, max_costly_pixels=1199)
    assert bad.value.code == "too_many_pixels"
    assert bad.value.detail == f"The image has 40×30 pixels; at most 1,199 of a {kind} image are read."

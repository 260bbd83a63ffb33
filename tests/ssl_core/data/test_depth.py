"""Depth, channels and pages: what is more than 8 bits of RGB, from files to pixels."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import GifImagePlugin, Image, ImageOps

from ssl_core.config.reading import Reading
from ssl_core.data.centre_crop import centre_crop
from ssl_core.data.dataset import Dataset
from ssl_core.data.decode import BadImage, count_pixels, decode, decode_square, encode_array, load
from ssl_core.data.formats import tiff_pages
from ssl_core.data.formats.pages import split
from ssl_core.data.formats.recognise import explain
from ssl_core.data.formats.value_range import FULL, RangeFinder, ValueRange
from ssl_core.data.image_store import read_centre_crops
from ssl_core.data.items import Item, PackError
from ssl_core.data.pack import pack
from tests.pictures import encoded, pixels, png

GREY = pixels(1, 40, 32)[:, :, 0]
COLOUR = pixels(2, 40, 32)


def tiff(values, **options):
    target = io.BytesIO()
    tifffile.imwrite(target, values, **options)
    return target.getvalue()


def bands(count, seed=0, kind=np.uint16, most=4096):
    return np.random.default_rng(seed).integers(0, most, (32, 40, count)).astype(kind)


def deep(values):
    return values.astype(np.uint16) * 257


def packed(tmp_path, files, **reading):
    items = [Item(name, data) for name, data in files.items()]
    report = pack(items, tmp_path, reading=Reading(**reading))
    return report, Dataset.open(tmp_path)


def codes(report):
    return {warning["code"] for warning in report["warnings"]}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"rowsperstrip": 5},
        {"tile": (16, 16)},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True, "byteorder": ">"},
        {"compression": "zlib", "predictor": True, "tile": (16, 16)},
        {"compression": "zstd"},
        {"compression": "packbits"},
        {"compression": "lzma"},
    ],
)
def test_every_kind_of_tiff_keeps_16_bits(options):
    for values, expected in ((deep(GREY), np.repeat(GREY[:, :, None], 3, 2)), (deep(COLOUR), COLOUR)):
        kind = "rgb" if values.ndim == 3 else "minisblack"
        assert np.array_equal(decode(tiff(values, photometric=kind, **options), values=FULL), expected)


def test_16_bit_colours_are_rounded_and_not_cut():
    values = (deep(COLOUR) - 200 * (COLOUR > 0)).astype(np.uint16)  # of which a cut leaves 200 and more as they were
    for file in (tiff(values, photometric="rgb"), imagecodecs.png_encode(values)):
        assert np.array_equal(decode(file, values=FULL), COLOUR - (COLOUR > 0))
        assert load(file)[1] == {"deep"}


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("count", [2, 4, 5, 13, 16])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_channels_are_kept(planar, count, kind):
    values = bands(count, most=256).astype(kind)
    stored = np.moveaxis(values, 2, 0) if planar == "separate" else values
    file = tiff(np.ascontiguousarray(stored), photometric="minisblack", planarconfig=planar, compression="lzw")
    assert np.array_equal(load(file)[0].values, values)
    image = decode(file, channels=None, values=ValueRange((0,), (255,)))
    assert np.array_equal(image, values)
    with pytest.raises(BadImage, match=f"this has {count}") as caught:
        decode(file)
    assert caught.value.code == "channels_differ"


def test_more_than_16_channels_are_refused_by_their_number():
    with pytest.raises(BadImage, match="TIFF has 18 channels") as caught:
        decode(tiff(bands(18), photometric="minisblack", planarconfig="contig"), channels=None)
    assert caught.value.code == "too_many_channels"


def test_white_is_zero_is_inverted_at_any_depth():
    for values in (255 - GREY, 65535 - deep(GREY)):
        assert np.array_equal(decode(tiff(values, photometric="miniswhite"))[:, :, 0], GREY)


def test_values_packed_in_12_bits_are_read():
    values = (GREY.astype(np.uint32) * 4095 + 127) // 255
    bits = "".join(f"{value:012b}" for value in values.ravel())
    data = int(bits, 2).to_bytes(len(bits) // 8)
    file = tiff(GREY)
    with tifffile.TiffFile(io.BytesIO(file)) as opened:
        tags = opened.pages[0].tags
        changed = bytearray(file[: tags[273].value[0]] + data)
        struct.pack_into("<H", changed, tags[258].valueoffset, 12)
        struct.pack_into("<I", changed, tags[279].valueoffset, len(data))
    assert np.array_equal(decode(bytes(changed))[:, :, 0], GREY)


def test_16_bit_alpha_is_composited_on_white():
    alpha = np.full((32, 40, 1), 65535, np.uint16)
    alpha[:, :20] = 0
    values = np.concatenate([deep(COLOUR), alpha], 2)
    expected = np.where(alpha == 0, 255, COLOUR)
    for file in (
        imagecodecs.png_encode(values),
        tiff(values, photometric="rgb", extrasamples=["unassalpha"], planarconfig="contig"),
    ):
        assert np.array_equal(decode(file, values=FULL), expected)


def test_an_unspecified_fourth_sample_is_a_channel_and_left_out_of_three():
    file = tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(decode(file, channels=None), np.dstack([COLOUR, GREY]))
    assert np.array_equal(decode(file, channels=3), COLOUR)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_deep_images_are_upright(orientation):
    tags = [(274, 3, 1, orientation, True)]
    raw = Image.fromarray(COLOUR)
    raw.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(raw))
    assert np.array_equal(decode(tiff(deep(COLOUR), photometric="rgb", extratags=tags), values=FULL), expected)


def test_twelve_bits_in_sixteen_keep_their_contrast_and_equal_eight_bits(tmp_path):
    twelve = {
        f"{n}.png": (pixels(n, 40, 32)[:, :, 0].astype(np.uint32) * 4095 // 255).astype(np.uint16) for n in range(6)
    }
    report, dataset = packed(tmp_path, {name: encoded(Image.fromarray(v)) for name, v in twelve.items()})
    assert report["range"] == {"low": 0, "high": 4095, "found_by": "bit depth"}
    assert report["warnings"] == []
    images = np.stack([dataset.read_image(n) for n in range(6)])
    assert np.abs(images.astype(int) - [pixels(n, 40, 32)[:, :, :1] for n in range(6)]).max() <= 1
    assert np.allclose(report["mean"], images.reshape(-1, 3).mean(0) / 255, rtol=0, atol=1e-12)
    assert np.allclose(report["std"], images.reshape(-1, 3).std(0) / 255, rtol=0, atol=1e-12)


def test_a_set_of_full_16_bits_is_scaled_as_ever(tmp_path):
    report, dataset = packed(tmp_path, {"a.png": encoded(Image.fromarray(deep(GREY)))})
    assert report["range"]["high"] == 65535
    assert np.array_equal(dataset.read_image(0)[:, :, 0], GREY)


def test_a_range_that_is_hardly_used_is_found_and_warned_of(tmp_path):
    values = (30_000 + GREY.astype(np.uint16) * 4).astype(np.uint16)
    report, dataset = packed(tmp_path, {"a.png": encoded(Image.fromarray(values))})
    assert report["range"]["found_by"] == "percentiles"
    assert [(found["code"], found["examples"]) for found in report["warnings"]] == [
        ("narrow_range", ["30000 to 31020"])
    ]
    assert np.ptp(dataset.read_image(0)) == 255
    with pytest.raises(PackError, match="strict"):
        packed(tmp_path / "strict", {"a.png": encoded(Image.fromarray(values))}, strict=True)


def test_a_range_for_images_of_8_bits_is_named_as_not_used(tmp_path):
    report, _ = packed(tmp_path, {"a.png": encoded(Image.fromarray(GREY))}, low=0.0, high=100.0)
    assert (report["range"], codes(report)) == (None, {"range_not_used"})


@pytest.mark.parametrize(
    ("kind", "scale", "shift", "expected"),
    [
        (np.float32, 1 / 255, 0, (0, 1)),
        (np.float64, 2 / 255, -1, (-1, 1)),
        (np.float32, 1, 0, (0, 255)),
        (np.int16, 1, 0, (0, 255)),
    ],
)
def test_floats_and_signed_values_have_the_range_that_they_lie_in(tmp_path, kind, scale, shift, expected):
    values = (np.arange(1280).reshape(32, 40) % 256 * scale + shift).astype(kind)
    report, dataset = packed(tmp_path, {"a.tif": tiff(values)})
    assert (report["range"]["low"], report["range"]["high"]) == expected
    assert np.abs(dataset.read_image(0)[:, :, 0].ravel() - np.arange(1280) % 256.0).max() <= 1


def test_a_stated_window_wins_and_values_beyond_it_are_black_and_white(tmp_path):
    values = np.linspace(-1000, 3000, 1280).reshape(32, 40).astype(np.int16)
    report, dataset = packed(tmp_path, {"ct.tif": tiff(values)}, low=-160, high=240)
    assert report["range"] == {"low": -160, "high": 240, "found_by": "stated"}
    grey = dataset.read_image(0)[:, :, 0]
    assert (grey[values <= -160] == 0).all()
    assert (grey[values >= 240] == 255).all()
    assert abs(int(grey[np.abs(values - 40).argmin() // 40, np.abs(values - 40).argmin() % 40]) - 128) <= 2


def test_missing_and_infinite_values_are_black_and_do_not_make_the_range(tmp_path):
    values = np.linspace(100, 900, 1280).reshape(32, 40).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -9999
    report, dataset = packed(tmp_path, {"dem.tif": tiff(values, extratags=[(42113, 2, 6, "-9999", True)])})
    assert report["range"]["low"] > 99
    assert report["range"]["high"] < 901
    assert (dataset.read_image(0)[0, :3] == 0).all()


def test_bands_have_a_range_each_and_statistics_each(tmp_path):
    scales = np.array([1, 16, 200, 4, 0.1])
    images = [(bands(5, n, np.float64, 256) * scales).astype(np.uint16) for n in range(4)]
    report, dataset = packed(tmp_path, {f"{n}.tif": encode_array(image) for n, image in enumerate(images)})
    assert report["range"]["high"] == [255, 4095, 65535, 1023, 25]
    assert report["pixels"]["shape"] == [4, 32, 40, 5]
    assert dataset.channels == len(report["mean"]) == len(report["std"]) == 5
    assert min(report["std"]) > 0.1
    assert np.array_equal(dataset.read_image(0)[:, :, 0], images[0][:, :, 0])
    assert read_centre_crops(dataset, np.arange(4), 16).shape == (4, 16, 16, 5)


def test_large_images_of_five_bands_are_decoded_on_access(tmp_path):
    values = np.random.default_rng(0).integers(0, 60_000, (70, 90, 5)).astype(np.uint16)
    report, dataset = packed(tmp_path, {"a.tif": tiff(values, photometric="minisblack", planarconfig="contig")})
    assert report["pixels"] is None
    assert dataset.read_image(0).shape == (70, 90, 5)
    assert np.allclose(report["mean"], dataset.read_image(0).reshape(-1, 5).mean(0) / 255)


def test_mixed_channels_are_refused_with_the_counts(tmp_path):
    files = {"a.png": png(), "b.tif": tiff(bands(5), photometric="minisblack", planarconfig="contig")}
    with pytest.raises(PackError, match="1 of 3 channels, 1 of 5 channels") as caught:
        packed(tmp_path, files)
    assert caught.value.code == "mixed_channels"
    with pytest.raises(PackError, match="Images of 5 channels are taken here; this has 3"):
        packed(tmp_path, files, channels=5)


def test_one_channel_keeps_greys_and_turns_colours_to_luma(tmp_path):
    files = {"a.png": encoded(Image.fromarray(GREY)), "b.png": encoded(Image.fromarray(COLOUR))}
    report, dataset = packed(tmp_path, files, channels=1)
    assert report["pixels"]["shape"] == [2, 32, 40, 1]
    assert np.array_equal(dataset.read_image(0)[:, :, 0], GREY)
    assert np.array_equal(dataset.read_image(1)[:, :, 0], np.asarray(Image.fromarray(COLOUR).convert("L")))


def test_order_of_arrival_does_not_change_a_range():
    images = [load(tiff((bands(1, n, most=70 * (n + 1)) + 900)[:, :, 0]))[0] for n in range(9)]
    found = []
    for order in (images, images[::-1]):
        finder = RangeFinder()
        for image in order:
            finder.add(image, bytes(image.values[:4, 0, 0]) * 4)
        found.append(finder.find(3))
    assert found[0] == found[1]


def test_arrays_become_files_with_equal_bytes():
    for values in (GREY, COLOUR, deep(GREY), bands(5), bands(7, kind=np.float32), bands(2, kind=np.uint8, most=256)):
        assert encode_array(values) == encode_array(values.copy())
        read = load(encode_array(values))[0].values
        assert np.array_equal(read[:, :, 0] if values.ndim == 2 else read, values)


def test_channels_are_resized_as_those_of_rgb():
    for side in (7, 16, 50):
        expected = centre_crop(COLOUR, side)
        four = centre_crop(np.dstack([COLOUR, GREY]), side)
        assert np.array_equal(four[:, :, :3], expected)
        assert np.array_equal(centre_crop(COLOUR[:, :, 1:2], side)[:, :, 0], expected[:, :, 1])


def test_a_reduced_square_of_a_deep_image_is_that_of_training():
    file, values = tiff(bands(5), photometric="minisblack", planarconfig="contig"), ValueRange((0,), (4095,))
    expected = centre_crop(decode(file, channels=5, values=values), 8)
    assert np.array_equal(decode_square(file, 8, channels=5, values=values), expected)


@pytest.mark.parametrize(("pages", "images", "shape"), [("images", 10, 3), ("channels", 1, 10), ("first", 1, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pages_of_a_stack(tmp_path, pages, images, shape, kind):
    stack = [pixels(n, 40, 32)[:, :, 0].astype(kind) * (257 if kind == np.uint16 else 1) for n in range(10)]
    file = encoded(
        Image.fromarray(stack[0]), "TIFF", save_all=True, append_images=[Image.fromarray(v) for v in stack[1:]]
    )
    report, dataset = packed(tmp_path, {"c/stack.tif": file}, pages=pages)
    assert len(dataset) == images
    assert dataset.channels == shape
    (warning,) = report["warnings"] or [None]
    assert (warning["count"], warning["examples"]) == (9, ["c/stack.tif"]) if pages == "first" else warning is None
    shown = dataset.read_image(0)[:, :, 9] if pages == "channels" else dataset.read_image(images - 1)[:, :, 0]
    assert np.array_equal(shown, pixels(0 if pages == "first" else 9, 40, 32)[:, :, 0])


def test_frames_of_an_animation_are_images_with_numbers_in_their_names(tmp_path):
    frames = [Image.fromarray(pixels(n)) for n in range(3)]
    file = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    report, dataset = packed(tmp_path, {"cat/a.png": file, "dog/b.png": png(9)}, pages="images")
    assert (len(dataset), report["classes"]) == (4, ["cat", "dog"])
    assert np.array_equal(dataset.read_image(2), pixels(2))


def test_the_frames_of_an_animation_are_decoded_once(tmp_path, monkeypatch):
    frames = [Image.fromarray(pixels(n)) for n in range(12)]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    opened = []
    opens = GifImagePlugin.GifImageFile._open
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "_open", lambda image: opened.append(image) or opens(image))
    assert len(list(split(file, 1000))) == 12
    assert len(opened) < 5


@pytest.mark.parametrize("pages", ["images", "channels"])
def test_a_damaged_animation_is_at_worst_a_bad_file(tmp_path, pages):
    """Cut between two frames, it has fewer."""
    frames = [Image.fromarray(pixels(n)) for n in range(3)]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    codes = []
    for end in range(20, len(file), 7):
        try:
            packed(tmp_path / str(end), {"a.gif": file[:end]}, pages=pages)
        except PackError as error:
            codes.append(error.code)
    assert len(codes) > 10
    assert set(codes) == {"bad_files"}


def test_overviews_and_masks_are_no_pages():
    target = io.BytesIO()
    with tifffile.TiffWriter(target) as writer:
        writer.write(GREY)
        writer.write(GREY[::2, ::2], subfiletype=1)
        writer.write(GREY)
    assert tiff_pages.find(target.getvalue()) == [0, 2]
    assert load(target.getvalue())[1] == {"grey", "animated"}


def with_text(body, kind=b"zTXt"):
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    file = encoded(Image.fromarray(COLOUR))
    return [file[:33] + chunk + file[33:], file[:-12] + chunk + file[-12:]]  # before the pixels, and after


def test_a_long_text_is_no_reason_to_refuse_pixels():
    text = bytes(np.random.default_rng(1).integers(32, 126, 2_000_000, dtype=np.uint8))
    bomb = zlib.compress(bytes(200_000_000), 9)
    for body in (zlib.compress(text), bomb):
        files = [*with_text(b"XML:com.adobe.xmp\0\0" + body), *with_text(b"Description\0\1\0\0\0" + body, b"iTXt")]
        for file in files:
            assert np.array_equal(decode(file), COLOUR)
            assert count_pixels(file) == 1280


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic", "a HEIC image"),
        (b"\0\0\0\x14ftypqt  ", "QuickTime"),
        (b"\0\0\0\x14ftypisom", "MP4"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"<svg xmlns=", "SVG"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"II*\0\x10\0\0\0CR\2\0", "RAW"),
        (b"nothing known", "not an image of a known format"),
    ],
)
def test_an_unknown_file_is_named_and_the_formats_that_are_read(start, name):
    sentence = explain(start + bytes(300))
    assert name in sentence
    assert "JPEG, PNG, TIFF" in sentence
    assert "see docs/upload.md" in sentence


def test_damage_to_deep_files_gives_pixels_or_a_bad_image():
    generator = np.random.default_rng(0)
    values = bands(5)
    good = [
        tiff(values, photometric="minisblack", planarconfig="contig", compression="lzw"),
        tiff(values, photometric="minisblack", planarconfig="contig", tile=(16, 16)),
        tiff(deep(GREY), compression="zlib"),
        tiff(deep(COLOUR), photometric="rgb", bigtiff=True),
        imagecodecs.png_encode(deep(COLOUR)),
    ]
    refused = 0
    for round_ in range(300):
        data = bytearray(good[round_ % len(good)])
        for place in generator.integers(0, min(len(data), 600), 3):
            data[place] = generator.integers(0, 256)
        try:
            decode(bytes(data), max_pixels=10**5, channels=None, values=FULL)
        except BadImage:
            refused += 1
    assert refused > 50
    for file in good:
        with pytest.raises(BadImage):
            decode(file[: len(file) // 2], channels=None, values=FULL)


def test_a_deep_image_is_measured_before_it_is_decoded():
    file = tiff(bands(16, kind=np.float64), photometric="minisblack", planarconfig="contig")
    assert count_pixels(file) == 32 * 40 * 32
    with pytest.raises(BadImage) as caught:
        decode(file, max_pixels=32 * 40 * 31, channels=None)
    assert caught.value.code == "too_many_pixels"


def dicom(values, photometric="MONOCHROME2", **fields):
    pydicom = pytest.importorskip("pydicom")
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = "1.2.3"
    image.SOPClassUID = pydicom.uid.CTImageStorage
    image.Rows, image.Columns = values.shape[:2]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, photometric
    image.BitsAllocated = image.BitsStored = 8 * values.itemsize
    image.HighBit, image.PixelRepresentation = image.BitsStored - 1, int(values.dtype.kind == "i")
    for name, value in fields.items():
        setattr(image, name, value)
    image.PixelData = values.tobytes()
    image["PixelData"].VR = "OW"
    target = io.BytesIO()
    image.save_as(target, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return target.getvalue()


def test_dicom_values_are_hounsfield_units_and_a_window_applies(tmp_path):
    raw = np.linspace(0, 4000, 1280).reshape(32, 40).astype(np.int16)
    file = dicom(raw, RescaleSlope=1, RescaleIntercept=-1024)
    _, dataset = packed(tmp_path, {"ct.dcm": file}, low=-160, high=240)
    assert np.array_equal(dataset.read_image(0)[:, :, 0] == 255, raw - 1024 >= 240 - 0.7)
    assert load(file)[0].values.min() == -1024
    with pytest.raises(BadImage):
        decode(file[: len(file) // 2])


def test_dicom_of_monochrome_1_is_inverted():
    file = dicom(65535 - deep(GREY), "MONOCHROME1")
    assert np.array_equal(decode(file, values=FULL)[:, :, 0], GREY)


def test_heic_is_read_where_its_library_is_installed(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    file = encoded(Image.fromarray(np.kron(COLOUR, np.ones((4, 4, 1), np.uint8))), "HEIF", quality=95)
    assert np.abs(decode(file).astype(int)[::4, ::4] - COLOUR).mean() < 12
    with pytest.raises(BadImage) as caught:
        decode(file, max_pixels=100)
    assert caught.value.code == "too_many_pixels"


def test_the_same_image_in_12_and_in_8_bits_has_the_same_embedding():
    torch = pytest.importorskip("torch")
    from ssl_core.models.encoder import Encoder, Preprocessing
    from ssl_core.models.resnet import ResNet
    from worker.encoder.decoder import _prepare

    torch.manual_seed(0)
    backbone = ResNet("resnet10", width=0.25, stem="cifar")
    shape = {"image_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    for values in ({"low": 0, "high": 4095}, None):  # None: trained on images of 8 bits
        encoder = Encoder(backbone, None, Preprocessing.of_card({"preprocessing": shape | {"range": values}}))
        deep_file = encoded(Image.fromarray((GREY.astype(np.uint32) * 4095 // 255).astype(np.uint16)))
        files = (encoded(Image.fromarray(GREY)), deep_file)
        batch = np.stack([_prepare(encoder, file, 10_000) for file in files])
        assert torch.cosine_similarity(*encoder.encode(batch).chunk(2)).item() > 0.999
    assert Preprocessing.of_card({"preprocessing": shape}).values == FULL  # of a model from before ranges

"""Packed datasets: reading and sampling of rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ssl_core.checksums import document
from ssl_core.data import decode
from ssl_core.data.dataset import Dataset
from ssl_core.data.decode import encode_png
from ssl_core.data.items import Item
from ssl_core.data.pack import pack
from ssl_core.data.sampling import draw_evenly, hold_out, order_by_class, shuffle_epoch
from ssl_core.errors import Corrupt


def photo(seed: int, height: int = 12, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 training images of three classes, 5 unlabelled ones, and 6 test images; all 12×12."""
    items = [Item(f"a/{n:02}.png", encode_png(photo(n)), ("cat", "dog", "owl")[n % 3], "train") for n in range(30)]
    items += [Item(f"b/{n}.png", encode_png(photo(100 + n)), None, "train") for n in range(5)]
    items += [Item(f"c/{n}.png", encode_png(photo(200 + n)), ("cat", "owl")[n % 2], "test") for n in range(6)]
    pack(items, tmp_path / "packed")
    return tmp_path / "packed"


def test_labels_splits_and_classes_are_read_as_packed(folder):
    dataset = Dataset.open(folder)
    assert dataset.classes == ["cat", "dog", "owl"]
    assert len(dataset) == 41
    assert len(dataset.indices("train")) == 35
    assert len(dataset.indices("val")) == 0
    assert np.bincount(dataset.labels[dataset.indices("test")], minlength=3).tolist() == [3, 0, 3]
    assert (dataset.labels[dataset.indices("train")] == -1).sum() == 5
    assert len(dataset.select_labelled(dataset.indices("train"))) == 30
    assert len(dataset.mean) == len(dataset.std) == 3


def test_a_row_is_described_by_its_columns_and_read_as_the_file_that_came(folder):
    dataset = Dataset.open(folder)
    assert dataset.describe(0) == {"label": None, "split": 0, "width": 12, "height": 12, "name": "b/0.png"}
    assert dataset.describe(40) == {"label": 2, "split": 2, "width": 12, "height": 12, "name": "c/5.png"}
    assert dataset.read_file(40) == encode_png(photo(205))


def test_the_pixel_array_and_the_encoded_images_are_equal(folder):
    dataset = Dataset.open(folder)
    assert dataset.pixels is not None
    (folder / "dataset.json").write_text(json.dumps(document.seal(dataset.report | {"pixels": None})))
    decoding = Dataset.open(folder)
    assert decoding.pixels is None
    for row in (0, 17, 40):
        assert np.array_equal(dataset.read_image(row), decoding.read_image(row))


def test_packed_images_are_decoded_without_a_size_limit(tmp_path, monkeypatch):
    sides = (70, 80)
    pack([Item(f"{side}.png", encode_png(photo(side, side, side))) for side in sides], tmp_path, max_pixels=10_000)
    monkeypatch.setattr(decode.decode, "__defaults__", (100,))
    assert [Dataset.open(tmp_path).read_image(row).shape for row in (0, 1)] == [(side, side, 3) for side in sides]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize(("file", "place"), [("images.arrow", -900), ("blocks.sha256", 3), ("dataset.json", 40)])
def test_opening_a_dataset_finds_a_flipped_byte_outside_its_images(folder, file, place):
    flip(folder / file, place)
    with pytest.raises(Corrupt, match=file):
        Dataset.open(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """16 images of 200 KB as files, in several blocks; their sizes differ, so that there is no pixel array."""
    folder = tmp_path_factory.mktemp("large")
    pack([Item(f"{n:02}.png", encode_png(photo(n, 260, 250 + n)), None, "train") for n in range(16)], folder)
    return folder


def test_reading_an_image_finds_a_flipped_byte_and_leaves_the_others_readable(large, tmp_path):
    folder = shutil.copytree(large, tmp_path / "flipped")
    image = Dataset.open(large)._encoded.read(9)
    flip(folder / "images.arrow", (folder / "images.arrow").read_bytes().index(image) + 100)
    dataset = Dataset.open(folder)
    assert np.array_equal(dataset.read_image(2), Dataset.open(large).read_image(2))
    with pytest.raises(Corrupt, match=r"images\.arrow"):
        dataset.read_image(9)


def test_every_row_is_checked_once_and_then_the_file_is_known(large):
    dataset = Dataset.open(large)
    file = dataset._encoded._file
    assert not file.is_checked
    for row in range(len(dataset)):
        dataset.read_image(row)
    assert file.is_checked


def test_a_row_of_the_pixel_array_is_checked_before_it_is_read(tmp_path):
    items = [Item(f"{n:02}.png", encode_png(photo(n, 64, 64)), None, "train") for n in range(40)]  # 12 KB each
    pack(items, tmp_path)
    flip(tmp_path / "pixels.npy", -5)
    dataset = Dataset.open(tmp_path)
    assert np.array_equal(dataset.read_pixels(np.array([0, 3]))[1], photo(3, 64, 64))
    with pytest.raises(Corrupt, match=r"pixels\.npy"):
        dataset.read_pixels(np.array([0, 39]))


def test_a_dataset_without_checksums_is_read_unchecked(folder):
    report = {name: value for name, value in Dataset.open(folder).report.items() if name not in ("blocks", "checksum")}
    (folder / "dataset.json").write_text(json.dumps(report))
    (folder / "blocks.sha256").unlink()
    flip(folder / "pixels.npy", -1)
    assert Dataset.open(folder).read_image(3).shape == (12, 12, 3)


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(OSError):
        Dataset.open(tmp_path)


def test_a_subset_is_stratified_seeded_and_ascending(folder):
    dataset = Dataset.open(folder)
    rows = dataset.indices("train", subset=12, seed=1)
    assert sorted(np.bincount(dataset.labels[rows] + 1, minlength=4).tolist()) == [3, 3, 3, 3]
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == dataset.indices("train", subset=12, seed=1).tolist()
    assert rows.tolist() != dataset.indices("train", subset=12, seed=2).tolist()
    assert len(dataset.indices("train", subset=1000)) == 35


def test_an_even_draw_gives_every_class_one_before_any_gets_two():
    labels = np.repeat(np.arange(10), np.arange(1, 11))
    for stream in range(20):
        assert sorted(labels[draw_evenly(labels, 10, stream)]) == list(range(10))
        counts = np.bincount(labels[draw_evenly(labels, 25, stream)], minlength=10)
        assert counts.max() - counts[2:].min() <= 1
        assert counts[0] == 1
    assert sorted(draw_evenly(labels, 55, 0)) == list(range(55))


def test_the_remainder_of_an_even_draw_goes_to_random_classes():
    labels = np.arange(100) % 10
    chosen = [labels[draw_evenly(labels, 3, stream)] for stream in range(200)]
    assert min(np.bincount(np.concatenate(chosen), minlength=10)) > 30


def test_order_by_class_is_a_permutation_sorted_by_class():
    labels = np.arange(50) % 7
    order = order_by_class(labels, 3)
    assert sorted(order) == list(range(50))
    assert (np.diff(labels[order]) >= 0).all()
    assert order.tolist() != order_by_class(labels, 4).tolist()


def test_holding_out_keeps_the_share_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    held_out = hold_out(labels, 0.2, 5)
    assert np.bincount(labels[held_out]).tolist() == [20, 10, 2]
    assert hold_out(labels, 1e-6, 5).sum() == 1


def test_every_epoch_has_its_own_reproducible_order():
    first, second = shuffle_epoch(0, 0, 100), shuffle_epoch(0, 1, 100)
    assert sorted(first.tolist()) == list(range(100))
    assert first.tolist() != second.tolist()
    assert first.tolist() == shuffle_epoch(0, 0, 100).tolist()
    assert first.tolist() != shuffle_epoch(1, 0, 100).tolist()

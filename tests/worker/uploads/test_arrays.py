"""Arrays: npz, npy and idx files, however their arrays are called."""

import gzip

import numpy as np
import pytest

from ssl_core.config import Reading
from ssl_core.data.items import Finding
from ssl_core.events import Result
from tests.sample_archives import make_idx, make_npy, make_npz, make_tar, make_zip
from tests.worker.uploads.readings import LIMITS, decoded, facts, read, read_error, read_findings, read_items
from worker.uploads.ingest import ingest
from worker.uploads.limits import Limits

GREY = np.random.default_rng(0).integers(0, 256, (4, 18, 20), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (4, 18, 20, 3), dtype=np.uint8)
AS_RGB = np.repeat(GREY[..., None], 3, 3)
Y = np.array([3, 1, 1, 2])
NAMED = [("train", 3), ("train", 1), ("test", 1), ("test", 2)]


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
        ("x_train", "y_train", "x_test", "y_test"),  # Keras
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("xtrain", "ytrain", "xtest", "ytest"),
        ("images_train", "labels_train", "images_test", "labels_test"),
        ("trainX", "trainY", "testX", "testY"),
        ("train_data", "train_targets", "test_data", "test_targets"),
    ],
)
def test_arrays_of_splits_are_paired_by_their_names(tmp_path, names):
    arrays = dict(zip(names, (COLOUR[:2], Y[:2], COLOUR[2:], Y[2:, None].astype(np.uint8)), strict=True))
    files = {f"set/{name}.npy": make_npy(array) for name, array in arrays.items()} | {"set/readme.txt": b"hello"}
    for data in (make_npz(**arrays), make_zip(files), make_tar(dict(reversed(files.items())))):
        items = [item for item in read_items(tmp_path, data) if not item.name.endswith(".txt")]
        assert sorted(facts(items)) == sorted(NAMED)
        assert sorted(map(bytes, decoded(items))) == sorted(map(bytes, COLOUR))


@pytest.mark.parametrize(
    "names", [("data", "targets"), ("data", "labels"), ("data", "y"), ("X", "y"), ("image", "label")]
)
def test_arrays_without_splits_are_paired_by_their_names(tmp_path, names):
    items = read_items(tmp_path, make_npz(**dict(zip(names, (GREY, Y), strict=True))))
    assert facts(items) == [("train", label) for label in Y.tolist()]
    assert np.array_equal(decoded(items), AS_RGB)


def test_the_only_array_that_can_hold_images_is_taken_whatever_its_name(tmp_path):
    data = make_npz(front=GREY, weights=np.zeros((4, 7)))
    assert np.array_equal(decoded(read_items(tmp_path, data)), AS_RGB)
    assert read_findings(tmp_path, data) == [("unread_arrays", "weights")]


def test_an_array_of_splits_is_read(tmp_path):
    splits = np.array(["train", "Validation", "test", "train"])
    for name, options in (("split", {}), ("part", {"split_column": "part"})):
        items = read_items(tmp_path, make_npz(images=GREY, **{name: splits}), **options)
        assert [item.split for item in items] == ["train", "val", "test", "train"]
    assert read_error(tmp_path, make_npz(images=GREY, split=np.array(["a"] * 4))) == "unknown_split"
    assert read_error(tmp_path, make_npz(images=GREY, split=np.array(["train"]))) == "labels_length"


def test_the_label_column_may_name_an_array(tmp_path):
    data = make_npz(images=GREY, labels=np.zeros(4, int), age=Y)
    assert [item.label for item in read_items(tmp_path, data, label_column="age")] == Y.tolist()
    assert read_findings(tmp_path, data, label_column="age") == [("unread_arrays", "labels")]


def test_one_hot_labels_are_classes_and_several_classes_are_not(tmp_path):
    one_hot = np.eye(5, dtype=np.float32)[Y]
    assert [item.label for item in read_items(tmp_path, make_npz(images=GREY, labels=one_hot))] == Y.tolist()
    several = make_npz(images=GREY, labels=np.ones((4, 5), np.uint8))
    assert [item.label for item in read_items(tmp_path, several)] == [None] * 4
    assert read_findings(tmp_path, several) == [("multiple_labels", "labels")]


@pytest.mark.parametrize("name", ["class_names", "label_names", "classes"])
def test_class_names_of_an_array_name_the_classes(tmp_path, name):
    data = make_npz(images=GREY, labels=Y, **{name: np.array(["a", "b", "c", "d", "e"])})
    assert [item.label for item in read_items(tmp_path, data)] == ["d", "b", "b", "c"]


@pytest.mark.parametrize(
    "images",
    [
        COLOUR / 255,
        (COLOUR / 255).astype(np.float32),
        COLOUR.astype(np.float32),
        COLOUR.astype(np.int64),
        COLOUR.astype(">u2"),
        np.ascontiguousarray(COLOUR.transpose(0, 3, 1, 2)),
        np.ascontiguousarray(COLOUR.transpose(0, 3, 1, 2)).astype(np.float32) / 255,
    ],
)
def test_values_from_0_to_1_or_255_and_channels_first_give_the_same_pixels(tmp_path, images):
    assert np.array_equal(decoded(read_items(tmp_path, make_npz(images=images))), COLOUR)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i4", "<i8", "<f4", "<f8"])
@pytest.mark.parametrize("values", [GREY, COLOUR])
def test_values_of_more_than_8_bits_are_kept_and_scaled_by_the_range_of_the_set(tmp_path, dtype, values):
    images = values.astype(np.int64)
    images[0, 0, :2] = np.array([0, 255]).reshape(2, *[1] * (values.ndim - 3))
    (tmp_path / "upload").write_bytes(make_npz(images=(images * 13).astype(dtype)))
    *_, event = ingest(tmp_path / "upload", tmp_path / "out", Reading(low=0, high=255 * 13), LIMITS)
    assert isinstance(event, Result), event
    packed = np.load(tmp_path / "out" / "pixels.npy").astype(int)
    expected = np.broadcast_to(images.reshape(4, 18, 20, -1), (4, 18, 20, 3))
    assert np.abs(packed - expected).max() <= 1


def test_images_of_many_channels_keep_them(tmp_path):
    bands = np.random.default_rng(0).integers(0, 256, (2, 7, 20, 24), dtype=np.uint8)
    (tmp_path / "upload").write_bytes(make_npz(images=bands))
    *_, event = ingest(tmp_path / "upload", tmp_path / "out", Reading(), LIMITS)
    assert isinstance(event, Result), event
    assert np.array_equal(np.load(tmp_path / "out" / "pixels.npy"), bands.transpose(0, 2, 3, 1))


def test_bool_arrays_are_black_and_white(tmp_path):
    pixels = decoded(read_items(tmp_path, make_npz(images=GREY > 100)))
    assert np.array_equal(pixels, np.where(AS_RGB > 100, 255, 0))


def test_flat_rows_are_read_where_their_shape_is_certain(tmp_path):
    square = np.ascontiguousarray(GREY[:, :, :18])
    pixels = decoded(read_items(tmp_path, make_npz(data=square.reshape(4, -1), target=Y)))
    assert np.array_equal(pixels[..., 0], square)
    assert read_error(tmp_path, make_npz(data=np.zeros((4, 3072), np.uint8))) == "wrong_shape"


def test_an_array_that_may_be_one_image_is_refused(tmp_path):
    assert read_error(tmp_path, make_npz(image=np.zeros((100, 120, 3), np.uint8))) == "wrong_shape"


def test_arrays_beside_image_files_are_not_read(tmp_path):
    from tests.pictures import png

    data = make_zip({"cat/1.png": png(), "x_train.npy": make_npy(GREY), "odd.npy": b"\x93NUMPY"})
    assert [item.name for item in read_items(tmp_path, data)] == ["cat/1.png"]
    assert read_findings(tmp_path, data) == [("unread_arrays", "x_train"), ("unread_arrays", "odd")]


def test_a_lone_npy_is_an_unlabelled_set(tmp_path):
    items = read_items(tmp_path, make_npy(GREY))
    assert facts(items) == [("train", None)] * 4
    assert np.array_equal(decoded(items), AS_RGB)


# --- idx -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, lambda data: gzip.compress(data, mtime=0)])
@pytest.mark.parametrize("archive", [make_zip, make_tar])
@pytest.mark.parametrize("stem", ["", "emnist-letters-"])
def test_mnist_is_read_from_its_four_files(tmp_path, pack, archive, stem):
    ending = "" if pack is bytes else ".gz"
    files = {
        f"raw/{stem}train-images-idx3-ubyte{ending}": pack(make_idx(GREY[:2])),
        f"raw/{stem}t10k-labels-idx1-ubyte{ending}": pack(make_idx(Y[2:].astype(np.uint8))),
        f"raw/{stem}t10k-images-idx3-ubyte{ending}": pack(make_idx(GREY[2:])),
        f"raw/{stem}train-labels-idx1-ubyte{ending}": pack(make_idx(Y[:2].astype(np.uint8))),
    }
    items = read_items(tmp_path, archive(files))
    assert facts(items) == NAMED
    assert np.array_equal(decoded(items), AS_RGB)


def test_idx_of_four_dimensions_is_read(tmp_path):
    assert np.array_equal(decoded(read_items(tmp_path, make_idx(COLOUR))), COLOUR)


def test_a_lone_idx_file_is_an_unlabelled_set(tmp_path):
    for data in (make_idx(GREY), gzip.compress(make_idx(GREY), mtime=0)):
        items = read_items(tmp_path, data)
        assert facts(items) == [("train", None)] * 4
        assert np.array_equal(decoded(items), AS_RGB)
    assert read_error(tmp_path, make_idx(Y.astype(np.uint8))) in ("no_images", "wrong_shape")
    assert read_error(tmp_path, make_idx(GREY)[:-1]) == "truncated_archive"
    assert read_error(tmp_path, gzip.compress(make_idx(GREY), mtime=0)[:-40]) == "truncated_archive"


@pytest.mark.parametrize("in_archive", [False, True])
def test_an_idx_bomb_is_refused(tmp_path, in_archive):
    blank = gzip.compress(bytes((0, 0, 8, 3)) + (100).to_bytes(4) + (1000).to_bytes(4) * 2 + bytes(10**8), mtime=0)
    data = make_zip({"train-images-idx3-ubyte.gz": blank}) if in_archive else blank
    assert read_error(tmp_path, data, Limits(2**40, 200, 10**6, 2**20, 10**6)) == "bomb"


def test_containers_may_be_larger_than_an_image(tmp_path):
    large = np.zeros((40, 200, 200), np.uint8)
    assert large.nbytes > LIMITS.image_bytes
    found = read(tmp_path, make_zip({"images.npy": make_npy(large), "a.txt": b"x"}))
    assert len([item for item in found if not isinstance(item, Finding)]) == 41

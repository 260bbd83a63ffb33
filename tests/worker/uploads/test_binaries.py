"""Binary formats of well-known datasets: CIFAR as pickles and as bytes, STL-10; and pickles that are no data."""

import io
import pickle

import numpy as np
import pytest

from ssl_core.data.items import PackError
from tests.sample_archives import compress_gzip, make_cifar_pickle, make_tar, make_zip
from tests.worker.uploads.readings import decoded, facts, read_error, read_findings, read_items
from worker.uploads.binaries import cifar, pickled
from worker.uploads.shelf import Stored

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
PLANES = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)).reshape(4, 3072)


def python2(**fields):
    return make_cifar_pickle(fields.pop("data"), **fields)


def python3(**fields):
    return pickle.dumps({key.encode(): value for key, value in fields.items()}, 4)


def python3_old(**fields):
    return pickle.dumps(fields, 2)


def python3_new(**fields):
    return pickle.dumps(fields, 5)


@pytest.mark.parametrize("pack", [python2, python3, python3_old, python3_new])
def test_cifar_10_is_read_from_its_pickles(tmp_path, pack):
    files = {
        "cifar-10-batches-py/data_batch_1": pack(data=PLANES[:2], labels=[1, 0], filenames=["a.png", "b.png"]),
        "cifar-10-batches-py/test_batch": pack(data=PLANES[2:], labels=[0, 2]),
        "cifar-10-batches-py/batches.meta": pickle.dumps({"label_names": ["plane", "car"], "num_vis": 3072}, 2),
        "cifar-10-batches-py/readme.html": b"<html>",
    }
    items = [item for item in read_items(tmp_path, compress_gzip(make_tar(files))) if "readme" not in item.name]
    assert facts(items) == [("train", "car"), ("train", "plane"), ("test", "plane"), ("test", 2)]
    assert np.array_equal(decoded(items), IMAGES)


def test_cifar_100_has_fine_labels_and_a_finding_about_the_coarse_ones(tmp_path):
    fields = {"data": PLANES, "fine_labels": [0, 1, 2, 3], "coarse_labels": [0, 0, 1, 1]}
    meta = {"fine_label_names": list("abcd"), "coarse_label_names": list("xy")}
    data = make_zip({"cifar-100-python/train": python3(**fields), "cifar-100-python/meta": pickle.dumps(meta)})
    assert facts(read_items(tmp_path, data)) == [("train", label) for label in "abcd"]
    assert read_findings(tmp_path, data) == [("unread_labels", "coarse_labels")]
    assert [item.label for item in read_items(tmp_path, data, label_column="coarse_labels")] == list("xxyy")


def test_a_lone_batch_is_read(tmp_path):
    items = read_items(tmp_path, python2(data=PLANES, labels=[3, 1, 2, 0]))
    assert facts(items) == [("train", label) for label in (3, 1, 2, 0)]


def test_cifar_is_read_from_its_binary_version(tmp_path):
    rows = np.concatenate([np.array([[1], [0], [1], [1]], np.uint8), PLANES], 1)
    files = {
        "c/data_batch_1.bin": rows[:3].tobytes(),
        "c/test_batch.bin": rows[3:].tobytes(),
        "c/batches.meta.txt": b"plane\ncar\n\n",
    }
    items = read_items(tmp_path, make_tar(files))
    assert facts(items) == [("train", "car"), ("train", "plane"), ("train", "car"), ("test", "car")]
    assert np.array_equal(decoded(items), IMAGES)
    both = np.concatenate([np.full((4, 1), 9, np.uint8), rows], 1)
    files = {"train.bin": both.tobytes(), "fine_label_names.txt": b"apple\nfish\n"}
    assert facts(read_items(tmp_path, make_zip(files))) == [
        ("train", name) for name in ("fish", "apple", "fish", "fish")
    ]
    assert read_error(tmp_path, make_zip({"train.bin": both.tobytes()[:-1]})) == "truncated_archive"


def test_stl_10_is_read_column_by_column_with_its_unlabelled_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    stored = images.transpose(0, 3, 2, 1)
    files = {
        "stl10_binary/class_names.txt": b"airplane\nbird\n",
        "stl10_binary/train_X.bin": stored[:1].tobytes(),
        "stl10_binary/train_y.bin": b"\x02",
        "stl10_binary/test_X.bin": stored[1:2].tobytes(),
        "stl10_binary/test_y.bin": b"\x01",
        "stl10_binary/unlabeled_X.bin": stored[2:].tobytes(),
    }
    items = read_items(tmp_path, compress_gzip(make_tar(files)))
    assert facts(items) == [("train", "bird"), ("test", "airplane"), ("train", None), ("train", None)]
    assert np.array_equal(decoded(items), images)


# --- pickles ---------------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_that_calls_for_code_is_refused_and_not_executed(tmp_path, protocol):
    target = tmp_path / "executed"
    data = pickle.dumps({"data": PLANES, "labels": Evil(str(target))}, protocol)
    assert read_error(tmp_path, data) == "unsafe_pickle"
    assert read_error(tmp_path, make_tar({"cifar/data_batch_1": data})) == "unsafe_pickle"
    assert not target.exists()
    pickle.loads(data)["labels"].close()
    assert target.exists()  # it would have been executed


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cos\nsystem\nU\x04true\x85R.",
        b"\x80\x02(U\x04trueios\nsystem\n.",
        b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)\x81.",  # NEWOBJ
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02P1\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension
        b"\x80\x02}}}s.",  # a dict as a key
    ],
)
def test_instructions_beside_those_of_data_are_refused(tmp_path, data):
    path = tmp_path / "pickle"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(PackError) as caught:
        pickled.load(file, len(data))
    assert caught.value.code in ("unsafe_pickle", "corrupt_archive")


def test_one_long_name_many_times_is_kept_short():
    name = "x" * 100_000
    file = io.BytesIO(pickle.dumps({"label_names": [name] * 1000}))
    batch = cifar._load(Stored("batches.meta", "cifar", file))
    assert sum(map(len, batch["label_names"])) <= 1000 * 1024


def test_numbers_whose_hashes_may_be_equal_are_no_keys(tmp_path):
    data = pickle.dumps({"data": PLANES, "labels": [0] * 4, (2**61 - 1) * 3: 1})
    assert read_error(tmp_path, data) == "unsafe_pickle"


def test_a_pickle_bomb_costs_neither_time_nor_memory(tmp_path):
    doubled = b"\x80\x02]q\x000" + b"".join(b"](h%ch%ceq%c0" % (n, n, n + 1) for n in range(200)) + b"}U\x04datah\xc8s."
    nested = b"\x80\x02" + b"]" * 100_000 + b"."
    copied = b"\x80\x02]c_codecs\nencode\nq\x00X" + (2**20).to_bytes(4, "little") + bytes(2**20) + b"q\x01"
    copied += b"(" + b"h\x00h\x01U\x06latin1\x86R" * 1000 + b"e."
    large = b"\x80\x04\x8e" + (2**50).to_bytes(8, "little") + b"few."
    long = b"\x80\x02" + b"K\x01" * 2_100_000 + b"."
    for data in (doubled, nested, copied, large, long):
        assert read_error(tmp_path, data) in ("unsafe_pickle", "no_images", "wrong_shape", "corrupt_archive")

"""Files of images within archives: archives, Parquet shards and WebDataset's samples."""

import pyarrow as pa
import pytest

from ssl_core.data.items import BadFile, Finding, Item
from tests.pictures import jpeg, png
from tests.sample_archives import compress_gzip, make_npz, make_parquet, make_tar, make_zip
from tests.worker.uploads.readings import facts, read, read_error, read_findings, read_items
from worker.uploads import shards
from worker.uploads.limits import Limits

CATS = {"1.png": png(1), "2.png": png(2)}
SAMPLES = {
    "000.jpg": jpeg(0),
    "000.cls": b"1\n",
    "000.txt": b"a photo",
    "001.cls": b"0",
    "001.jpg": jpeg(1),
}


@pytest.mark.parametrize(
    ("path", "folder", "number"),
    [
        ("dogs.zip", "dogs", ""),
        ("a/train.tar.gz", "a/train", ""),
        ("n01440764.tar", "n01440764", ""),
        ("7.zip", "7", ""),
        ("train-000012.tar", "train", "000012"),
        ("data/train-00000-of-00002.tar", "data/train", "00000-of-00002"),
        ("train_1.zip", "train", "1"),
        ("images_001.tar.gz", "images", "001"),
        ("a/00000.tar", "a", "00000"),
        ("00000.tar", "", "00000"),
    ],
)
def test_the_name_of_an_archive_is_a_folder_and_a_number(path, folder, number):
    assert shards.find_folder(path) == (folder, number)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("default/test/0000.parquet", "test"),
        ("validation-00000-of-00001.parquet", "val"),
        ("train/x_test.npy", "test"),
        ("unlabeled_X.bin", "train"),
        ("trainer/latest.zip", None),
    ],
)
def test_the_split_of_a_file_is_a_word_of_its_name_or_folder(path, split):
    assert shards.find_split(path) == split


@pytest.mark.parametrize("pack", [make_zip, make_tar])
@pytest.mark.parametrize("inner", [("zip", make_zip), ("tar", make_tar), ("tgz", lambda f: compress_gzip(make_tar(f)))])
def test_archives_in_an_archive_are_folders(tmp_path, pack, inner):
    ending, pack_inner = inner
    data = pack({f"train/cat.{ending}": pack_inner(CATS), "train/dog/3.png": png(3)})
    assert read_items(tmp_path, data) == [
        Item("train/cat/1.png", png(1)),
        Item("train/cat/2.png", png(2)),
        Item("train/dog/3.png", png(3)),
    ]


def test_a_damaged_inner_archive_is_a_bad_file_and_a_bomb_ends_the_upload(tmp_path):
    item, bad = read(tmp_path, make_zip({"a.png": png(), "b.zip": make_zip(CATS)[:-30]}))
    assert (item, bad.code) == (Item("a.png", png()), "truncated_archive")
    assert isinstance(bad, BadFile)
    bomb = make_zip({"a.bin": bytes(80 * 2**20)})
    assert read_error(tmp_path, make_tar({"b.zip": bomb}), Limits(2**40, 200, 100, 2**30, 10**6)) == "bomb"
    assert read_error(tmp_path, make_tar({"b.zip": make_zip({"../a.png": png()})})) == "unsafe_path"


def test_a_damaged_shard_of_parquet_ends_the_upload(tmp_path):
    assert read_error(tmp_path, make_tar({"train-0.parquet": shard(1), "train-1.parquet": shard(2)[:-9]})) == (
        "corrupt_archive"
    )


def test_an_office_document_is_no_archive(tmp_path):
    (item,) = read(tmp_path, make_zip({"notes.docx": make_zip(CATS)}))
    assert item.name == "notes.docx"


def test_an_npz_in_an_archive_is_read(tmp_path):
    import numpy as np

    inner = make_npz(images=np.zeros((2, 8, 9), np.uint8), labels=np.array([1, 2]))
    items = read_items(tmp_path, make_zip({"test.npz": inner, "train.npz": inner, "readme.md": b""}))
    assert facts(items) == [("test", 1), ("test", 2), ("train", 1), ("train", 2), (None, None)]
    assert len({item.name for item in items}) == 5


# --- Parquet ---------------------------------------------------------------------------------------------------------


def shard(*seeds):
    columns = {"image": pa.array([{"bytes": png(seed), "path": "0.png"} for seed in seeds]), "label": list(seeds)}
    return make_parquet(columns)


@pytest.mark.parametrize("pack", [make_zip, make_tar])
def test_parquet_shards_are_one_set_and_name_its_splits(tmp_path, pack):
    data = pack(
        {
            "data/train-00000-of-00002.parquet": shard(1, 2),
            "data/train-00001-of-00002.parquet": shard(3),
            "data/test-00000-of-00001.parquet": shard(4),
        }
    )
    items = read_items(tmp_path, data)
    assert facts(items) == [("train", 1), ("train", 2), ("train", 3), ("test", 4)]
    assert [item.data for item in items] == [png(seed) for seed in (1, 2, 3, 4)]
    assert len({item.name for item in items}) == 4


@pytest.mark.parametrize("name", ["picture", "photo", "jpg", "content", "pixel_values", "whatever"])
def test_parquet_finds_its_columns(tmp_path, name):
    columns = {name: pa.array([png(1)]), "category": ["cat"], "split": ["test"], "id": [3]}
    (item,) = read_items(tmp_path, make_parquet(columns))
    assert (item.label, item.split) == ("cat", "test")
    assert read_findings(tmp_path, make_parquet(columns)) == [("unread_columns", "id")]


def test_parquet_reads_the_columns_that_are_named(tmp_path):
    columns = {"image": pa.array([png(1)]), "label": [1], "age": [7], "fold": ["val"]}
    options = {"label_column": "age", "split_column": "fold"}
    assert facts(read_items(tmp_path, make_parquet(columns), **options)) == [("val", 7)]
    assert read_findings(tmp_path, make_parquet(columns), **options) == [("unread_columns", "label")]
    assert read_error(tmp_path, make_parquet(columns), label_column="none") == "no_column"


def test_parquet_of_several_labels_takes_the_first_and_names_the_others(tmp_path):
    columns = {"img": pa.array([png(1)]), "coarse_label": [1], "fine_label": [5]}
    assert facts(read_items(tmp_path, make_parquet(columns))) == [("train", 5)]
    assert ("several_label_columns", "coarse_label") in read_findings(tmp_path, make_parquet(columns))


@pytest.mark.parametrize("images", [pa.array([{"bytes": None, "path": "a"}]), ["a.png"]])
def test_parquet_of_paths_says_that_the_images_are_missing(tmp_path, images):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = images.cast(kind) if isinstance(images, pa.Array) else images
    assert read_error(tmp_path, make_parquet({"image": column})) in ("images_not_embedded", "no_image_column")


def test_parquet_of_lists_of_pixels_is_read(tmp_path):
    import numpy as np

    from tests.worker.uploads.readings import decoded

    grey = np.random.default_rng(0).integers(0, 256, (2, 12, 12), dtype=np.uint8)
    for column in (pa.array(grey.reshape(2, -1).tolist()), pa.array(grey.tolist(), pa.list_(pa.list_(pa.uint8())))):
        items = read_items(tmp_path, make_parquet({"pixels": column, "label": [1, 2]}))
        assert np.array_equal(decoded(items)[..., 0], grey)
    ragged = pa.array([[[1, 2], [3]]])
    (bad,) = read(tmp_path, make_parquet({"image": ragged}))
    assert bad.code == "wrong_shape"
    assert read_error(tmp_path, make_parquet({"image": [[0.5] * 144]})) == "wrong_dtype"


# --- WebDataset ------------------------------------------------------------------------------------------------------


def test_samples_of_webdataset_have_the_label_of_their_key(tmp_path):
    items = read_items(tmp_path, make_tar(SAMPLES))
    assert items == [Item("000.jpg", jpeg(0), 1, "train"), Item("001.jpg", jpeg(1), 0, "train")]
    assert read_findings(tmp_path, make_tar(SAMPLES)) == [("unread_fields", "txt")]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b" {} \n"])
def test_fields_of_samples_that_say_nothing_are_not_missed(tmp_path, content):
    archive = make_tar({"1.png": png(), "1.cls": b"3", "1.json": content})
    assert read_findings(tmp_path, archive) == []


def test_shards_of_webdataset_are_of_the_split_in_their_name(tmp_path):
    data = make_tar(
        {
            "train-000000.tar": make_tar(SAMPLES),
            "train-000001.tar": make_tar(SAMPLES),
            "val-0000.tar": make_tar(SAMPLES),
        }
    )
    items = read_items(tmp_path, data)
    assert facts(items) == [("train", 1), ("train", 0)] * 2 + [("val", 1), ("val", 0)]
    assert len({item.name for item in items}) == 6


@pytest.mark.parametrize("about", [b'{"label": "cat"}', b'{"class": "cat", "x": 1}', b'{"cls": "cat"}'])
def test_labels_of_webdataset_may_stand_in_json(tmp_path, about):
    assert facts(read_items(tmp_path, make_tar({"0.jpg": jpeg(), "0.json": about}))) == [("train", "cat")]


def test_the_label_column_may_name_a_field_of_a_sample(tmp_path):
    data = make_tar({"0.jpg": jpeg(), "0.cls": b"1", "0.json": b'{"age": 7}', "0.text": b"seven"})
    assert facts(read_items(tmp_path, data, label_column="text")) == [("train", "seven")]


def test_ordinary_files_whose_names_have_dots_stay_as_they_are(tmp_path):
    files = {"cat/a.b.jpg": jpeg(1), "cat/a.c.jpg": jpeg(2), "cat/a.json": b'{"label": "x"}', "cat/b.jpg": jpeg(3)}
    assert read(tmp_path, make_tar(files)) == [Item(name, data) for name, data in files.items()]
    many = {f"a.{n}.jpg": jpeg(1) for n in range(40)}
    assert read(tmp_path, make_tar(many)) == [Item(name, data) for name, data in many.items()]


def test_a_label_that_is_no_text_is_a_bad_file(tmp_path):
    (bad,) = read(tmp_path, make_tar({"0.jpg": jpeg(), "0.cls": b"\xff\xfe"}))
    assert (bad.name, bad.code) == ("0.cls", "wrong_label")
    assert not isinstance(bad, Finding)

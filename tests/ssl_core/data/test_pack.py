"""Dataset packing: folder layouts, the files written, and refused input."""

import errno
import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ssl_core import files
from ssl_core.config.reading import Reading
from ssl_core.data import clean_names, layouts
from ssl_core.data.decode import decode
from ssl_core.data.items import BadFile, Item, PackError
from ssl_core.data.pack import pack, pack_folder
from tests.pictures import encoded, jpeg, pixels, png

NOTHING_CONVERTED = dict.fromkeys(("orientation", "grey16", "cmyk", "palette", "alpha", "animated", "grey", "deep"), 0)


def rows(directory):
    with pa.memory_map(str(directory / "images.arrow")) as source:
        return pa.ipc.open_file(source).read_all().to_pylist()


def test_rows_are_sorted_by_split_class_and_name(tmp_path):
    names = ["test/b/1.png", "train/b/2.png", "train/a/9.png", "val/a/1.png", "train/b/1.png", "train/0.png"]
    pack([Item(name, png(seed)) for seed, name in enumerate(names)], tmp_path)
    assert [(row["name"], row["split"], row["label"]) for row in rows(tmp_path)] == [
        ("train/0.png", 0, None),
        ("train/a/9.png", 0, 0),
        ("train/b/1.png", 0, 1),
        ("train/b/2.png", 0, 1),
        ("val/a/1.png", 1, 0),
        ("test/b/1.png", 2, 1),
    ]


def test_a_row_holds_the_original_bytes(tmp_path):
    pack([Item("a.jpg", jpeg(3, 20, 10))], tmp_path)
    (row,) = rows(tmp_path)
    assert row["image"] == jpeg(3, 20, 10)
    assert row["sha256"] == hashlib.sha256(jpeg(3, 20, 10)).digest()
    assert (row["width"], row["height"]) == (20, 10)


def test_report_is_the_dataset_json_and_is_complete(tmp_path):
    items = [Item("train/a/1.png", png(1)), Item("train/b/1.png", png(2)), Item("train/b/2.png", png(2))]
    report = pack([*items, Item("test/b/1.png", png(4)), Item("notes.txt", b"hello")], tmp_path)
    assert report == json.loads((tmp_path / "dataset.json").read_text())
    train = np.stack([pixels(1), pixels(2), pixels(2)]).reshape(-1, 3) / 255
    assert np.allclose(report.pop("mean"), train.mean(0), rtol=0, atol=1e-14)
    assert np.allclose(report.pop("std"), train.std(0), rtol=0, atol=1e-14)
    assert len(report.pop("checksum")) == 64
    blocks = report.pop("blocks")
    assert blocks["sizes"] == {name: (tmp_path / name).stat().st_size for name in ("images.arrow", "pixels.npy")}
    assert report == {
        "format": 1,
        "classes": ["a", "b"],
        "splits": {
            "train": {"images": 3, "labelled": 3, "per_class": [1, 2]},
            "val": {"images": 0, "labelled": 0, "per_class": [0, 0]},
            "test": {"images": 1, "labelled": 1, "per_class": [0, 1]},
        },
        "sizes": [{"width": 12, "height": 8, "images": 4}],
        "skipped": [],
        "skipped_count": 0,
        "ignored": 1,
        "converted": NOTHING_CONVERTED,
        "duplicates": 1,
        "layout": {
            "reading": "splits",
            "splits": {"test": "test", "train": "train"},
            "labels": "folders",
            "tables": [],
        },
        "channels": 3,
        "range": None,
        "warnings": [],
        "pixels": {"file": "pixels.npy", "shape": [4, 8, 12, 3]},
        "size_bytes": sum(file.stat().st_size for file in tmp_path.iterdir() if file.name != "dataset.json"),
    }


def test_small_uniform_images_also_get_a_pixel_array_in_row_order(tmp_path):
    pack([Item(f"{seed % 3}/{seed}.jpg", jpeg(seed)) for seed in range(10)], tmp_path)
    array = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    assert array.dtype == np.uint8
    assert all(np.array_equal(array[n], decode(row["image"])) for n, row in enumerate(rows(tmp_path)))


@pytest.mark.parametrize("sizes", [[(12, 8), (8, 12)], [(65, 8), (65, 8)], [(12, 8), (12, 8), (13, 8), (12, 8)]])
def test_other_sizes_get_no_pixel_array(tmp_path, sizes):
    report = pack([Item(f"{n}.png", png(n, *size)) for n, size in enumerate(sizes)], tmp_path)
    assert report["pixels"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocks.sha256", "dataset.json", "images.arrow"]


def test_order_of_arrival_does_not_change_a_byte(tmp_path):
    items = [Item(f"{seed % 3}/{seed}.jpg", jpeg(seed)) for seed in range(20)]
    pack(items, tmp_path / "one")
    pack(reversed(items), tmp_path / "two")
    for name in ("images.arrow", "pixels.npy", "blocks.sha256", "dataset.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_width_and_height_are_those_after_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    report = pack([Item("a.jpg", encoded(Image.fromarray(pixels()), "JPEG", exif=exif))], tmp_path)
    assert (rows(tmp_path)[0]["width"], rows(tmp_path)[0]["height"]) == (8, 12)
    assert report["converted"] == NOTHING_CONVERTED | {"orientation": 1}
    assert report["pixels"]["shape"] == [1, 12, 8, 3]


def test_conversions_are_counted(tmp_path):
    flat = Image.fromarray(pixels())
    files = {
        "16.png": encoded(Image.fromarray(pixels()[:, :, 0].astype(np.uint16) * 257)),
        "cmyk.jpg": encoded(flat.convert("CMYK"), "JPEG"),
        "palette.png": encoded(flat.quantize(16)),
        "alpha.png": encoded(flat.convert("RGBA")),
        "animated.gif": encoded(flat, "GIF", save_all=True, append_images=[flat.rotate(180)]),
        "grey.png": encoded(flat.convert("L")),
    }
    report = pack([Item(name, data) for name, data in files.items()], tmp_path)
    assert report["converted"] == {
        "orientation": 0,
        "grey16": 1,
        "cmyk": 1,
        "palette": 2,  # a GIF has a palette too
        "alpha": 1,
        "animated": 1,
        "grey": 2,
        "deep": 0,
    }


def test_given_labels_and_splits_are_used(tmp_path):
    items = [Item("x", png(1), 10, "train"), Item("y", png(2), 9, "train"), Item("z", png(3), -1, "test")]
    report = pack(items, tmp_path)
    assert report["classes"] == ["9", "10"]
    assert [row["label"] for row in rows(tmp_path)] == [0, 1, None]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.png", "b.png"], [("train", None)] * 2),
        (["cat/a.png", "dog/a.png"], [("train", "cat"), ("train", "dog")]),
        (["photos/a.png", "photos/b.png"], [("train", None)] * 2),
        (["data/set/cat/a.png", "data/set/dog/x/a.png"], [("train", "cat"), ("train", "dog")]),
        (["cat/a.png", "loose.png"], [("train", "cat"), ("train", None)]),
        (["w/Train/cat/a.png", "w/valid/cat/a.png"], [("train", "cat"), ("val", "cat")]),
        (["train/a.png", "validation/a.png", "test/a.png"], [("train", None), ("val", None), ("test", None)]),
        (["train/cat/a.png"], [("train", "cat")]),
        (["train/n01/images/a.png", "train/n02/images/a.png"], [("train", "n01"), ("train", "n02")]),
        (["test/a.png", "control/a.png"], [("train", "test"), ("train", "control")]),
        (["train/a/1.png", "extra/1.png", "top.png"], [("train", "a"), None, None]),
        ([], []),
    ],
)
def test_layouts(paths, expected):
    assert layouts.parse_paths(paths).assigned == expected


@pytest.mark.parametrize("paths", [["test/a.png"], ["val/a/1.png", "test/a/1.png"]])
def test_a_dataset_without_training_images_is_refused(tmp_path, paths):
    with pytest.raises(PackError) as caught:
        pack([Item(path, png()) for path in paths], tmp_path)
    assert caught.value.code == "no_training_images"
    with pytest.raises(PackError) as caught:
        pack([Item(path, png(), None, "test") for path in paths], tmp_path)
    assert caught.value.code == "no_training_images"


@pytest.mark.parametrize("items", [[], [Item("read.me/notes.md", b"text")], [Item("__MACOSX/._a.jpg", b"x")]])
def test_a_dataset_without_images_is_refused(tmp_path, items):
    with pytest.raises(PackError) as caught:
        pack(items, tmp_path)
    assert caught.value.code == "no_images"
    assert not (tmp_path / "dataset.json").exists()


def test_documents_and_system_files_are_ignored(tmp_path):
    names = [".DS_Store", "a/.hidden", "__MACOSX/a.png", "a/notes.txt", "labels.csv", "LICENSE", "Thumbs.db", "m.json"]
    report = pack([*(Item(name, b"text") for name in names), Item("a.png", png())], tmp_path)
    assert report["ignored"] == len(names)
    assert report["skipped_count"] == 0


LEFTOVERS = [
    *("@eaDir/x/SYNOPHOTO_THUMB_S.png", "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.png", "cat/SYNOPHOTO_THUMB_L.jpg"),
    *("$RECYCLE.BIN/a.png", "System Volume Information/b.png", "lost+found/c.png", "#recycle/d.png", "@Recycle/e.png"),
    *("__MACOSX/cat/._0.png", "cat/._0.png", "cat/.DS_Store", "cat/Icon\\x0d", "cat/Thumbs.db", "cat/ehthumbs.db"),
    *("cat/desktop.ini", "cat/Desktop.ini", ".ipynb_checkpoints/0.png", "__pycache__/a.pyc", "cat/Picasa.ini"),
    *(
        "cat/0.tfw",
        "cat/0.prj",
        "cat/0.tif.ovr",
        "cat/0.tif.aux.xml",
        "cat/0.jgw",
        "cat/0.pgw",
        "cat/0.xmp",
        "cat/0.AAE",
    ),
]


def test_leftovers_of_systems_and_programs_are_ignored_and_counted(tmp_path):
    """Some of them are images."""
    images = [Item(f"{name}/{n}.png", png(n)) for n, name in enumerate(("cat", "dog"))]
    report = pack([*images, *(Item(name, png(9)) for name in LEFTOVERS)], tmp_path)
    assert (report["classes"], report["ignored"], report["warnings"]) == (["cat", "dog"], len(LEFTOVERS), [])
    assert report["splits"]["train"]["images"] == 2


def warnings(items, path, **fields):
    report = pack(items, path, reading=Reading(**fields))
    return {found["code"]: (found["count"], found["examples"]) for found in report["warnings"]}


def test_a_class_without_training_images_is_named(tmp_path):
    items = [Item(f"train/{name}/{name}.png", png(seed)) for seed, name in enumerate("ab")]
    items += [Item(f"test/{name}/{name}.png", png(9 + seed)) for seed, name in enumerate("az")]
    assert warnings([*items, Item("val/z/y.png", png(20))], tmp_path) == {"class_without_training_images": (2, ["z"])}


def test_the_same_image_in_two_splits_is_named(tmp_path):
    items = [Item(f"{split}/a/{n}.png", png(n)) for split, n in (("train", 1), ("train", 2), ("test", 2), ("val", 3))]
    assert warnings(items, tmp_path) == {"same_image_in_two_splits": (1, ["test/a/2.png"])}


def test_one_class_that_holds_nearly_all_is_named(tmp_path):
    items = [Item(f"{'b' if n == 0 else 'a'}/{n}.png", png(n)) for n in range(30)]
    assert warnings(items, tmp_path / "odd") == {"one_class_holds_nearly_all": (29, ["a"])}
    items = [Item(f"{'b' if n < 5 else 'a'}/{n}.png", png(n)) for n in range(30)]
    assert warnings(items, tmp_path / "even") == {}


def test_unread_documents_are_named_and_those_of_labels_are_read(tmp_path):
    images = [Item(f"{n}.png", png(n)) for n in range(2)]
    table = Item("labels.csv", b"file,label\n0.png,x\n1.png,y\n")
    documents = [Item("a.xml", b"<a/>"), Item("b.mat", b"MATLAB 5.0"), Item("README.md", b"read me")]
    for order in (1, -1):  # they come before or after the images
        report = pack([table, *documents, *images][::order], tmp_path / str(order))
        assert report["classes"] == ["x", "y"]
        assert [(found["code"], found["examples"]) for found in report["warnings"]] == [
            ("unread_document", ["a.xml", "b.mat"])
        ]


def test_a_broken_image_with_the_name_of_a_document_is_a_bad_file(tmp_path):
    with pytest.raises(PackError) as caught:
        pack([Item("a.png", png()), Item("license_plate_0.png", png()[:40])], tmp_path / "a")
    assert caught.value.code == "bad_files"
    assert pack([Item(f"{name}/0.png", png(n)) for n, name in enumerate(("new", "recycled"))], tmp_path / "b")[
        "classes"
    ] == ["new", "recycled"]


def test_strict_makes_a_warning_an_error(tmp_path):
    items = [Item("a.png", png()), Item("labels.json", b"[]")]
    with pytest.raises(PackError, match="With `strict`") as caught:
        pack(items, tmp_path, reading=Reading(strict=True))
    assert caught.value.code == "warnings"
    assert pack(items[:1], tmp_path, reading=Reading(strict=True))["warnings"] == []


def test_given_splits_and_folders_may_be_mixed(tmp_path):
    items = [Item("x", png(1), "cat", "train"), Item("test/dog/y.png", png(2)), Item("train/dog/z.png", png(3), "cat")]
    report = pack(items, tmp_path)
    assert report["classes"] == ["cat", "dog"]
    assert [(row["name"], row["split"], row["label"]) for row in rows(tmp_path)] == [
        ("train/dog/z.png", 0, 0),
        ("x", 0, 0),
        ("test/dog/y.png", 2, 1),
    ]


def test_an_image_is_recognised_under_any_name(tmp_path):
    assert pack([Item("data/photo.txt", jpeg())], tmp_path)["splits"]["train"]["images"] == 1


def bad_files(count):
    return [Item(f"cat/~{n:04d}.jpg", jpeg()[:100]) for n in range(count)]


def test_reject_lists_up_to_a_hundred_bad_files(tmp_path):
    with pytest.raises(PackError) as caught:
        pack([Item("cat/good.png", png()), *bad_files(120)], tmp_path)
    assert caught.value.code == "bad_files"
    assert caught.value.detail.startswith("120 files cannot be part of the dataset, first cat/~0000.jpg: ")
    assert len(caught.value.errors) == 100
    assert caught.value.errors[1]["pointer"] == "/files/cat~1~00001.jpg"
    assert caught.value.errors[1]["code"] == "corrupt"
    assert not (tmp_path / "dataset.json").exists()


def test_skip_reports_up_to_a_thousand_and_counts_all(tmp_path):
    report = pack([Item("cat/good.png", png()), *bad_files(1100)], tmp_path, reading=Reading(on_bad_file="skip"))
    assert report["skipped_count"] == 1100
    assert len(report["skipped"]) == 1000
    assert set(report["skipped"][0]) == {"name", "code", "detail"}
    assert report["splits"]["train"]["images"] == 1


def test_skipping_every_file_is_refused(tmp_path):
    with pytest.raises(PackError) as caught:
        pack(bad_files(2), tmp_path, reading=Reading(on_bad_file="skip"))
    assert caught.value.code == "no_images"
    assert len(caught.value.errors) == 2


@pytest.mark.parametrize(
    "names",
    [("a/X.png", "a/x.PNG"), ("a/é.png", "a/é.png"), ("a/ﬁsh.png", "a/fish.png"), ("straße.png", "STRASSE.png")],
)
def test_duplicate_folded_names_are_bad_files(tmp_path, names):
    items = [Item(clean_names.clean_path(name), png(seed)) for seed, name in enumerate((*names, "a/other.png"))]
    with pytest.raises(PackError) as caught:
        pack(items, tmp_path)
    assert [error["code"] for error in caught.value.errors] == ["duplicate_name"]
    report = pack(items, tmp_path, reading=Reading(on_bad_file="skip"))
    assert [fault["name"] for fault in report["skipped"]] == [clean_names.clean_path(names[1])]
    assert {row["image"] for row in rows(tmp_path)} == {png(0), png(2)}


def test_classes_that_differ_only_in_case_are_refused(tmp_path):
    with pytest.raises(PackError) as caught:
        pack([Item("Cat/1.png", png(1)), Item("cat/2.png", png(2))], tmp_path)
    assert caught.value.code == "duplicate_class"


def test_a_file_outside_the_splits_is_a_bad_file(tmp_path):
    items = [Item("train/a/1.png", png(1)), Item("cover.png", png(2))]
    with pytest.raises(PackError) as caught:
        pack(items, tmp_path)
    assert [error["code"] for error in caught.value.errors] == ["misplaced"]
    assert pack(items, tmp_path, reading=Reading(on_bad_file="skip"))["splits"]["train"]["images"] == 1


def test_a_reader_may_report_a_file_as_bad(tmp_path):
    report = pack([BadFile("a", "symlink", "No."), Item("b.png", png())], tmp_path, reading=Reading(on_bad_file="skip"))
    assert report["skipped"] == [{"name": "a", "code": "symlink", "detail": "No."}]


def test_too_many_images_are_refused(tmp_path):
    with pytest.raises(PackError) as caught:
        pack([Item(f"{n}.png", png(n)) for n in range(4)], tmp_path, max_images=3)
    assert caught.value.code == "too_many_images"


def test_too_many_pixels_make_a_bad_file(tmp_path):
    with pytest.raises(PackError) as caught:
        pack([Item("a.png", png())], tmp_path, max_pixels=95)
    assert caught.value.errors[0]["code"] == "too_many_pixels"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a/b.png", "a/b.png"),
        ("./a//b.png", "a/b.png"),
        ("a\\b.png", "a/b.png"),
        ("a/\x00\x1b[31m\n.png", "a/\\x00\\x1b[31m\\x0a.png"),
        (b"caf\xe9.png".decode("utf-8", "surrogateescape"), "caf\\xe9.png"),
        ("lone\ud800.png", "lone\\ud800.png"),
        ("é", "é"),
        ("a:1/b:2.png", "a:1/b:2.png"),
        ("right\u202eto left", "right\\x202eto left"),
        ("x" * 2000, "x" * 512),
    ],
)
def test_names_are_escaped_and_normalised(raw, clean):
    assert clean_names.clean_path(raw) == clean
    clean.encode("utf-8")


@pytest.mark.parametrize("raw", ["/etc/passwd", "../x", "a/../../x", "..\\x", "C:\\x", "c:/x", "\\x"])
def test_absolute_and_parent_paths_are_unsafe(raw):
    with pytest.raises(clean_names.UnsafePath):
        clean_names.clean_path(raw)


def test_a_plain_folder_is_packed(tmp_path):
    for name in ("cats/1.png", "dogs/1.png", ".git/x.png", "cats/.DS_Store", "README"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png() if name.endswith("1.png") else b"x")
    report = pack_folder(tmp_path / "photos", tmp_path / "packed")
    assert report["classes"] == ["cats", "dogs"]
    assert report["ignored"] == 2


def test_a_pipe_or_a_broken_link_in_a_folder_is_a_bad_file(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.png").write_bytes(png())
    (photos / "2.png").symlink_to(photos / "1.png")
    (photos / "3.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(photos / "4.png")
    with pytest.raises(PackError) as caught:
        pack_folder(photos, tmp_path / "packed")
    assert [(fault["pointer"], fault["code"]) for fault in caught.value.errors] == [
        ("/files/3.png", "not_a_file"),
        ("/files/4.png", "not_a_file"),
    ]


def test_large_datasets_are_written_in_several_batches(tmp_path):
    report = pack((Item(f"{n:05d}.png", png(n % 7, 3, 2)) for n in range(5000)), tmp_path)
    assert report["duplicates"] == 4993
    with pa.memory_map(str(tmp_path / "images.arrow")) as source:
        assert pa.ipc.open_file(source).num_record_batches == 2
    assert [row["name"] for row in rows(tmp_path)] == [f"{n:05d}.png" for n in range(5000)]


def test_a_full_disk_at_the_end_leaves_no_dataset_that_looks_complete(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", no_room)  # of the temporary file that becomes dataset.json
    with pytest.raises(OSError, match="No space left") as error:
        pack([Item("a.png", png(1)), Item("b.png", png(2))], tmp_path)
    assert error.value.errno in files.FULL
    assert not list(tmp_path.glob("*dataset.json*"))
    assert not list(tmp_path.glob(".*dataset.json*"))

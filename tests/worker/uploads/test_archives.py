"""Archive readers: every supported format, and damaged, oversized or unsafe archives."""

import copy
import io
import json
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from ssl_core.data.decode import decode
from ssl_core.data.items import BadFile, Item, PackError
from tests import sample_archives
from tests.pictures import jpeg, pixels, png
from worker.uploads import archives
from worker.uploads.limits import Limits, Meter

LIMITS = Limits(unpacked_bytes=2**30, ratio=200, images=1000, image_bytes=2**20, image_pixels=10**6)


def read(path, data, limits=LIMITS):
    path = path / "upload"
    path.write_bytes(data)
    with path.open("rb") as file:
        return list(archives.read(file, Meter(limits, len(data))))


def read_error(path, data, limits=LIMITS):
    with pytest.raises(PackError) as caught:
        read(path, data, limits)
    assert caught.value.detail.endswith(".")
    return caught.value.code


@pytest.mark.parametrize("kind", sample_archives.EVERY_KIND)
def test_every_format_yields_its_files(tmp_path, kind):
    assert read(tmp_path, sample_archives.EVERY_KIND[kind]) == [
        Item(name, data) for name, data in sample_archives.FILES.items()
    ]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read_whole(tmp_path, form):
    name = "/".join(["a-rather-long-folder-name"] * 12) + "/é.png"
    assert read(tmp_path, sample_archives.make_tar({name: png()}, tar_format=form)) == [Item(name, png())]


def test_folders_are_skipped(tmp_path):
    assert (
        read(tmp_path, sample_archives.make_tar({}, sample_archives.make_tar_entry("cat", type=tarfile.DIRTYPE))) == []
    )
    assert read(tmp_path, sample_archives.make_zip({"cat/": b""})) == []


# --- npz -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 8, 12), (3, 8, 12, 1), (3, 8, 12, 3)])
def test_npz_images_keep_every_pixel(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    items = read(tmp_path, sample_archives.make_npz(images=images))
    expected = np.broadcast_to(images.reshape(3, 8, 12, -1), (3, 8, 12, 3))
    assert np.array_equal(np.stack([decode(item.data) for item in items]), expected)
    assert [item.split for item in items] == ["train"] * 3


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([2, 0]), [2, 0]),
        (np.array([[2], [0]], np.uint8), [2, 0]),
        (np.array(["cat", "dög"]), ["cat", "dög"]),
        (np.array([b"cat", b"\xff"]), ["cat", "\\xff"]),
    ],
)
def test_npz_labels_are_numbers_or_names(tmp_path, labels, expected):
    items = read(tmp_path, sample_archives.make_npz(images=np.stack([pixels(1), pixels(2)]), labels=labels))
    assert [item.label for item in items] == expected


IMAGES = np.zeros((2, 8, 12, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"images": np.array([object()])}, "object_array"),
        ({"images": IMAGES, "labels": np.array([None, "x"])}, "object_array"),
        ({"images": np.zeros((2, 8, 12), np.complex64)}, "wrong_dtype"),
        ({"images": np.full((2, 8, 12), np.nan)}, "not_finite"),
        ({"images": np.zeros((2, 8), np.uint8)}, "wrong_shape"),
        ({"images": np.zeros((2, 3, 8, 12), np.uint8)}, "wrong_shape"),
        ({"images": np.zeros((2, 0, 12), np.uint8)}, "wrong_shape"),
        ({"images": np.asfortranarray(IMAGES)}, "wrong_shape"),
        ({"images": np.zeros((1, 1001, 1000), np.uint8)}, "too_many_pixels"),
        ({"images": np.zeros((1001, 1, 1), np.uint8)}, "too_many_images"),
        ({"images": IMAGES, "labels": np.zeros(3, np.int64)}, "labels_length"),
        ({"images": IMAGES, "labels": np.zeros(2)}, "wrong_dtype"),
        ({"front": IMAGES, "back": IMAGES}, "no_images"),
        ({"images": np.zeros(2, [("a", "u1")])}, "wrong_dtype"),
    ],
)
def test_npz_arrays_of_an_unsupported_form_are_refused(tmp_path, arrays, code):
    assert read_error(tmp_path, sample_archives.make_npz(**arrays)) == code


def header(shape):
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(target, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return target.getvalue()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (header((900, 900, 900)), "truncated_archive"),  # declares more than it holds
        (header((-1, 8, 8)), "wrong_shape"),
        (b"\x93NUMPY\x01\x00\x08\x00{'a': (}", "corrupt_archive"),
        (b"no array", "corrupt_archive"),
        (
            b"\x93NUMPY\x02\x00" + (2**24).to_bytes(4, "little") + bytes(2**10),
            "corrupt_archive",
        ),  # not read to its declared length
        (b"", "corrupt_archive"),
    ],
)
def test_npz_headers_are_checked_before_data_is_read(tmp_path, data, code):
    assert read_error(tmp_path, sample_archives.make_zip({"images.npy": data})) == code


# --- Parquet ---------------------------------------------------------------------------------------------------------


def struct_column():
    return pa.array([{"bytes": png(1), "path": "a.png"}, {"bytes": jpeg(2), "path": None}])


@pytest.mark.parametrize(
    "column", [struct_column(), pa.array([png(1), jpeg(2)]), pa.array([png(1), jpeg(2)], pa.large_binary())]
)
def test_parquet_images_are_bytes_or_structs_with_bytes(tmp_path, column):
    items = read(
        tmp_path, sample_archives.make_parquet({"image": column, "label": [4, -1], "split": ["train", "test"]})
    )
    assert items == [Item("row 000000000", png(1), 4, "train"), Item("row 000000001", jpeg(2), -1, "test")]


def test_parquet_without_label_and_split_is_unlabelled_training_data(tmp_path):
    finding, item = read(tmp_path, sample_archives.make_parquet({"id": [7], "holiday": pa.array([png()])}))
    assert (item.label, item.split) == (None, "train")
    assert (finding.code, finding.example) == ("unread_columns", "id")


def test_parquet_labels_may_be_names(tmp_path):
    column = pa.array(["cat", None]).dictionary_encode()
    items = read(tmp_path, sample_archives.make_parquet({"image": pa.array([png()] * 2), "label": column}))
    assert [item.label for item in items] == ["cat", None]


def test_parquet_class_names_of_hugging_face_are_used(tmp_path):
    about = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    columns = {"image": struct_column(), "label": [1, 0]}
    items = read(tmp_path, sample_archives.make_parquet(columns, {b"huggingface": json.dumps(about).encode()}))
    assert [item.label for item in items] == ["dog", "cat"]


def test_parquet_row_without_an_image_is_a_bad_file(tmp_path):
    faults = read(tmp_path, sample_archives.make_parquet({"image": pa.array([None, b"x" * (2**20 + 1)], pa.binary())}))
    assert [fault.code for fault in faults] == ["empty", "file_too_large"]


NOT_TEXT = pa.StringArray.from_buffers(1, pa.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0])), pa.py_buffer(b"\xff"))


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"image": [1.5]}, "no_image_column"),
        ({"front": pa.array([b"x"]), "back": pa.array([b"y"])}, "no_image_column"),
        ({"image": pa.array([b"x"]), "label": [0.5]}, "wrong_dtype"),
        ({"image": pa.array([b"x"]), "split": [3]}, "wrong_dtype"),
        ({"image": pa.array([b"x"]), "split": ["later"]}, "unknown_split"),
        ({"image": pa.array([b"x"] * 1001)}, "too_many_images"),
        ({"image": pa.array([b"x"]), "label": NOT_TEXT}, "corrupt_archive"),
        ({"image": pa.array([b"x"]), "split": NOT_TEXT}, "corrupt_archive"),
    ],
)
def test_parquet_of_an_unsupported_form_is_refused(tmp_path, columns, code):
    assert read_error(tmp_path, sample_archives.make_parquet(columns)) == code


@pytest.mark.parametrize("name", ["image", "label", "split"])
def test_parquet_with_a_duplicate_column_is_refused(tmp_path, name):
    images = pa.array([b"x"])
    columns = {"image": images} if name == "image" else {"image": images, name: pa.array(["train"])}
    doubled = pa.Table.from_arrays([*columns.values(), columns[name]], names=[*columns, name])
    assert read_error(tmp_path, sample_archives.make_parquet(doubled)) == "doubled_column"


# --- damaged and unsafe archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"x" * 5000, png(), sample_archives.compress_gzip(b"x" * 5000), b"Rar!\x1a\x07\x00"]
)
def test_other_files_are_refused(tmp_path, data):
    assert read_error(tmp_path, data) == "not_an_archive"


@pytest.mark.parametrize("kind", sample_archives.EVERY_KIND)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_archives_are_refused(tmp_path, kind, share):
    data = sample_archives.EVERY_KIND[kind]
    if kind.startswith("tar") and "." not in kind:
        data = data[: len(data.rstrip(b"\0")) + 512 & -512]  # without the padding, which may be missing
    assert read_error(tmp_path, data[: int(len(data) * share)]) == "truncated_archive"


def test_tar_cut_between_two_files_is_truncated(tmp_path):
    first = sample_archives.make_tar({"a.png": png()}, tar_format=tarfile.USTAR_FORMAT)[
        : 512 + (len(png()) + 511) // 512 * 512
    ]
    assert read_error(tmp_path, first) == "truncated_archive"


def test_tar_with_a_damaged_header_is_refused(tmp_path):
    data = bytearray(sample_archives.make_tar(tar_format=tarfile.USTAR_FORMAT))
    data[data.index(b"train/dog")] ^= 1
    assert read_error(tmp_path, bytes(data)) == "corrupt_archive"


@pytest.mark.parametrize("pack", [sample_archives.compress_gzip, sample_archives.compress_xz])
def test_damage_within_a_compressed_stream_is_detected(tmp_path, pack):
    data = bytearray(pack(sample_archives.make_tar()))
    data[-8] ^= 255  # of the checksum, or of the index
    assert read_error(tmp_path, bytes(data)) == "corrupt_archive"


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png"])
def test_paths_that_lead_out_are_refused(tmp_path, name):
    assert read_error(tmp_path, sample_archives.make_zip({name: png()})) == "unsafe_path"
    assert read_error(tmp_path, sample_archives.make_tar({name: png()})) == "unsafe_path"
    assert list(tmp_path.iterdir()) == [tmp_path / "upload"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (tarfile.SYMTYPE, "symlink"),
        (tarfile.LNKTYPE, "hardlink"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "fifo"),
    ],
)
def test_special_tar_entries_are_bad_files(tmp_path, kind, code):
    special = sample_archives.make_tar_entry("cat/link.png", type=kind, linkname="/etc/passwd")
    item, fault, *findings = read(tmp_path, sample_archives.make_tar({"a.png": png()}, special))
    assert item == Item("a.png", png())
    assert [finding.code for finding in findings] == ["links_not_followed"] * code.endswith("link")
    assert (fault.name, fault.code) == ("cat/link.png", code)


@pytest.mark.parametrize(("mode", "code"), [(0o120777, "symlink"), (0o020666, "device"), (0o010666, "fifo")])
def test_special_zip_entries_are_bad_files(tmp_path, mode, code):
    data = sample_archives.make_zip({"cat/link.png": b"/etc/passwd"}, modes={"cat/link.png": mode})
    fault, *findings = read(tmp_path, data)
    assert fault.code == code
    assert [finding.code for finding in findings] == ["links_not_followed"] * (code == "symlink")


def test_sparse_tar_entries_are_refused(tmp_path):
    assert (
        read_error(
            tmp_path, sample_archives.make_tar({}, sample_archives.make_tar_entry("a", type=tarfile.GNUTYPE_SPARSE))
        )
        == "unsupported_entry"
    )
    mapped = sample_archives.make_tar_entry("a", pax_headers={"GNU.sparse.major": "1"})
    assert [fault.code for fault in read(tmp_path, sample_archives.make_tar({}, mapped))] == ["unsupported_entry"]


def test_extended_headers_of_many_records_are_read(tmp_path):
    records = {f"key{number}": "\n9 =" for number in range(20_000)} | {"path": "cat/é.png"}
    entry = sample_archives.make_tar_entry("b.png", pax_headers=records)
    assert [item.name for item in read(tmp_path, sample_archives.make_tar({}, entry))] == ["cat/é.png"]
    cut = sample_archives.make_tar({}, entry).replace(b"13 key1=", b"00 key1=")
    assert read_error(tmp_path, cut) == "corrupt_archive"


def zeros(count):
    return {"a.bin": bytes(count)}


@pytest.mark.parametrize(
    "pack",
    [
        sample_archives.make_zip,
        lambda files: sample_archives.compress_gzip(sample_archives.make_tar(files)),
        lambda files: sample_archives.compress_xz(sample_archives.make_tar(files)),
        lambda files: sample_archives.compress_zstd(sample_archives.make_tar(files)),
    ],
)
def test_bombs_are_refused(tmp_path, pack):
    data = pack(zeros(70 * 2**20))
    limits = Limits(2**30, 200, 1000, 2**30, 10**6)
    assert read_error(tmp_path, data, limits) == "bomb"
    assert read_error(tmp_path, data, Limits(2**20, 10**9, 1000, 2**30, 10**6)) == "too_much_data"


def test_npz_and_parquet_bombs_are_refused(tmp_path):
    limits = Limits(2**20, 10**9, 10**9, 2**30, 10**9)
    assert (
        read_error(tmp_path, sample_archives.make_npz(images=np.zeros((3, 1000, 1000), np.uint8)), limits)
        == "too_much_data"
    )
    assert read_error(tmp_path, sample_archives.make_parquet({"image": [bytes(2**19)] * 3}), limits) == "too_much_data"


WIDE = Limits(2**40, 200, 10**7, 2**20, 10**9)


@pytest.mark.parametrize(
    "data",
    [
        sample_archives.make_parquet({"image": pa.array([png()] * 30_000)}),
        sample_archives.make_npz(images=np.zeros((30_000, 1, 1), np.uint8)),
        sample_archives.compress_zstd(
            sample_archives.make_tar({}, *[sample_archives.make_tar_entry(f"{n}") for n in range(51_000)])
        ),
        sample_archives.compress_zstd(
            sample_archives.make_tar(
                {}, *[sample_archives.make_tar_entry(f"{n}", type=tarfile.DIRTYPE) for n in range(51_000)]
            )
        ),
    ],
    ids=("rows of one image", "pixels of one value", "empty files", "folders"),
)
def test_too_many_images_and_entries_for_the_bytes_of_the_upload_are_refused(tmp_path, data):
    assert read_error(tmp_path, data, WIDE) == "bomb"


@pytest.mark.parametrize("count", [1, 20_000])
def test_images_that_pack_to_nothing_are_read_while_they_are_few(tmp_path, count):
    repeated = sample_archives.make_parquet({"image": pa.array([png()] * count)})
    assert len(repeated) < count or count == 1
    assert len(read(tmp_path, repeated, WIDE)) == count
    blank = sample_archives.make_npz(images=np.zeros((count, 2, 2), np.uint8))
    assert len(read(tmp_path, blank, WIDE)) == count


def test_many_images_need_sixteen_bytes_each():
    Meter(WIDE, 32 * 737_280).add_images(737_280)  # fewer bytes than dSprites has
    with pytest.raises(PackError, match="at most 62,500 images"):
        Meter(WIDE, 10**6).add_images(62_501)


def test_zip_entries_that_share_their_data_are_refused(tmp_path):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("0.png", png())
        for n in range(1, 4):
            archive.filelist.append(copy.copy(archive.filelist[0]))
            archive.filelist[n].filename = f"{n}.png"
    assert read_error(tmp_path, target.getvalue()) == "corrupt_archive"


def test_the_ratio_counts_all_files_together(tmp_path):
    files = {f"{n}.bin": bytes(2**20) for n in range(70)}
    assert read_error(tmp_path, sample_archives.make_zip(files), Limits(2**40, 200, 1000, 2**20, 10**6)) == "bomb"


def test_too_many_entries_are_refused(tmp_path):
    limits = Limits(2**30, 200, 1, 2**20, 10**6)
    assert (
        read_error(tmp_path, sample_archives.make_zip({f"{n}/": b"" for n in range(10_003)}), limits)
        == "too_many_entries"
    )
    folders = [sample_archives.make_tar_entry(str(n), type=tarfile.DIRTYPE) for n in range(10_003)]
    assert read_error(tmp_path, sample_archives.make_tar({}, *folders), limits) == "too_many_entries"


@pytest.mark.parametrize("declared", [1, 2**31])
def test_wrong_sizes_in_a_zip_are_detected(tmp_path, declared):
    data = bytearray(sample_archives.make_zip({"a.png": png()}, zipfile.ZIP_STORED))
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", declared)
    (found,) = read(tmp_path, bytes(data))
    assert isinstance(found, BadFile)
    assert found.code == "corrupt_entry"


def test_files_above_the_size_limit_are_bad_files(tmp_path):
    files = {"big.png": bytes(2**20 + 1), "good.png": png()}
    for data in (sample_archives.make_zip(files), sample_archives.make_tar(files)):
        fault, item = read(tmp_path, data)
        assert (fault.name, fault.code) == ("big.png", "file_too_large")
        assert item == Item("good.png", png())


def test_encrypted_zip_is_refused(tmp_path):
    data = bytearray(sample_archives.make_zip())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert read_error(tmp_path, bytes(data)) == "encrypted"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_method_of_a_zip_has_a_bounded_output(tmp_path, method):
    items = [Item(name, data) for name, data in sample_archives.FILES.items()]
    assert read(tmp_path, sample_archives.make_zip(method=method)) == items
    bomb = sample_archives.make_zip({"a.bin": bytes(100 * 2**20)}, method)
    tracemalloc.start()
    assert [fault.code for fault in read(tmp_path, bomb)] == ["file_too_large"]
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_a_zip_method_that_is_not_read_is_named(tmp_path):
    data = sample_archives.make_zip({"a.png": png()})
    place = data.index(b"PK\x01\x02") + 10
    (fault,) = read(tmp_path, data[:place] + b"\x09\0" + data[place + 2 :])
    assert (fault.code, "Deflate64" in fault.detail) == ("unsupported_compression", True)


def test_damaged_zip_entry_is_a_bad_file_among_good_ones(tmp_path):
    data = bytearray(sample_archives.make_zip({"a.png": png(1), "b.png": png(2)}, zipfile.ZIP_STORED))
    data[data.index(png(1)) + 20] ^= 1
    fault, item = read(tmp_path, bytes(data))
    assert (fault.name, fault.code) == ("a.png", "corrupt_entry")
    assert item == Item("b.png", png(2))


def test_zip_name_of_invalid_utf8_is_refused(tmp_path):
    data = sample_archives.make_zip({"café.png": png()}).replace("é".encode(), b"\xff\xff")
    assert read_error(tmp_path, data) == "corrupt_archive"


def test_zip_that_lists_files_outside_of_itself_is_refused(tmp_path):
    data = bytearray(sample_archives.make_zip())
    data[-3] = 1  # the offset of the central directory: 16 MiB on
    assert read_error(tmp_path, bytes(data)) == "corrupt_archive"


def test_names_of_invalid_utf8_are_escaped(tmp_path):
    data = sample_archives.make_tar({"ab\x01cd.png": png()}, tar_format=tarfile.GNU_FORMAT)
    raw = bytearray(data)
    raw[0:2] = b"\xff\xfe"
    raw[148:156] = b"%06o\0 " % (256 + sum(raw[:148]) + sum(raw[156:512]))
    (item,) = read(tmp_path, bytes(raw))
    assert item.name == "\\xff\\xfe\\x01cd.png"


def test_tar_header_that_declares_a_name_of_gigabytes_is_refused(tmp_path):
    huge = sample_archives.make_tar_entry("x", type=tarfile.GNUTYPE_LONGNAME, size=2**33)
    assert read_error(tmp_path, huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024)) == "corrupt_archive"


def test_an_archive_within_an_archive_is_opened_and_one_within_that_is_not(tmp_path):
    inner = sample_archives.make_zip({"cat/1.png": png(1), "inner.zip": sample_archives.make_zip()})
    item, other = read(tmp_path, sample_archives.make_zip({"data/train.zip": inner}))
    assert item == Item("data/train/cat/1.png", png(1))
    assert other.name == "data/train/inner.zip"

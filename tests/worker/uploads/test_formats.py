"""Formats: names in zip archives, what follows a tar archive, and what unknown uploads are taken for."""

import binascii
import bz2
import io
import lzma
import struct
import time
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_core.data.items import Finding, Item, PackError
from tests.pictures import jpeg, png
from tests.sample_archives import compress_gzip, compress_zstd, make_tar, make_zip
from tests.worker.uploads.readings import LIMITS, read, read_error, read_findings, read_items
from worker.uploads import archives, formats
from worker.uploads.limits import Meter


def zip_of_raw_names(names, extra=b""):
    """Return a zip whose names are those bytes, without the flag of UTF-8."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(chr(65 + number) * len(name))
            info.extra = extra
            archive.writestr(info, png(number))
    data = target.getvalue()
    for number, name in enumerate(names):
        placeholder = bytes([65 + number]) * len(name)
        assert data.count(placeholder) == 2
        data = data.replace(placeholder, name)
    return data


@pytest.mark.parametrize(
    ("names", "encoding", "page"),
    [
        (["猫/照片1.png", "狗/照片2.png"], "gbk", "GBK"),
        (["猫/写真1.png", "犬/しゃしん.png", "カメラ.png"], "cp932", "Shift-JIS"),
        (["고양이/사진1.png", "개/사진2.png"], "cp949", "EUC-KR"),
        (["кошки/фото1.png", "собаки/фото2.png"], "cp866", "code page 866"),
        (["café/été.png", "Müller/größe.png"], "cp437", "code page 437"),
        (["naïve.png"], "cp437", "code page 437"),
        (["貓/相片.png", "狗/照片.png"], "big5", "Big5"),
    ],
)
def test_names_of_an_unknown_code_page_are_guessed_with_a_finding(tmp_path, names, encoding, page):
    data = zip_of_raw_names([name.encode(encoding) for name in names])
    finding, *items = read(tmp_path, data)
    assert [item.name for item in items] == names
    assert (finding.code, finding.example, finding.count) == ("guessed_names", names[0], len(names))
    assert page in finding.detail


def test_names_of_utf8_without_the_flag_are_read_without_a_finding(tmp_path):
    (item,) = read(tmp_path, zip_of_raw_names(["猫/é.png".encode()]))
    assert item.name == "猫/é.png"


@pytest.mark.parametrize(
    ("kind", "checksum", "name"), [(0x7075, 0, "猫.png"), (0x7075, 1, "__.png"), (0x6375, 0, "__.png")]
)
def test_a_unicode_path_counts_while_its_checksum_fits(tmp_path, kind, checksum, name):
    body = b"\x01" + struct.pack("<I", binascii.crc32(b"__.png") ^ checksum) + "猫.png".encode()
    field = struct.pack("<HH", kind, len(body)) + body
    (item,) = read(tmp_path, zip_of_raw_names([b"__.png"], field))
    assert item == Item(name, png(0))


def test_folders_with_backslashes_are_folders_and_colons_are_letters(tmp_path):
    items = read(tmp_path, zip_of_raw_names([b"cat\\1.png", b"at 12:30.png"]))
    assert [item.name for item in items] == ["cat/1.png", "at 12:30.png"]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = "photos\\cat\\"
        archive.writestr(info, b"")
    assert read(tmp_path, data.getvalue()) == []


def test_zip64_is_read(tmp_path):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open("a.png", "w", force_zip64=True) as entry:
        entry.write(png())
    assert read(tmp_path, target.getvalue()) == [Item("a.png", png())]


@pytest.mark.parametrize(("size", "found"), [(5000, "a.bin"), (2**22, "file_too_large")])
def test_zstandard_in_a_zip_is_read_and_bounded(tmp_path, size, found):
    packed = compress_zstd(bytes(size))
    data = bytearray(make_zip({"a.bin": packed}, zipfile.ZIP_STORED))
    for place in (data.index(b"PK\x03\x04") + 8, data.index(b"PK\x01\x02") + 10):
        data[place : place + 2] = struct.pack("<H", 93)
        data[place + 6 : place + 10] = struct.pack("<I", binascii.crc32(bytes(size)))
        data[place + 14 : place + 18] = struct.pack("<I", size)
    (file,) = read(tmp_path, bytes(data))
    assert found == (file.name if isinstance(file, Item) else file.code)


# --- tar -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, compress_gzip, lzma.compress, bz2.compress])
def test_tar_archives_that_follow_each_other_are_read_as_one(tmp_path, pack):
    first, second = make_tar({"cat/1.png": png(1)}), make_tar({"dog/2.png": png(2)})
    assert read(tmp_path, pack(first + second)) == [Item("cat/1.png", png(1)), Item("dog/2.png", png(2))]
    finding, item = read(tmp_path, pack(first + b"signature" + bytes(3000)))
    assert item == Item("cat/1.png", png(1))
    assert (finding.code, finding.example) == ("bytes_behind_end", "9 bytes")
    assert read_error(tmp_path, pack(first + second[:1000])) == "truncated_archive"


# --- other files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (jpeg(), "single JPEG"),
        (png(), "single PNG"),
        (b"II*\0" + bytes(20), "single TIFF"),
        (b"BM" + bytes(30), "single BMP"),
        (b"RIFF....WEBPVP8 ", "single WebP"),
        (b"\0\0\0\x1cftypavif", "single AVIF"),
        (b"\0\0\0\x1cftypheic", "HEIC image"),
        (b"II*\0\x10\0\0\0CR\2\0", "CR2 RAW"),
        (b"MZ\x90\0", "Windows program"),
        (b"%PDF-1.7\n", "PDF"),
        (b"Rar!\x1a\x07\x01\x00", "RAR archive"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "7z archive"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"MATLAB 5.0 MAT-file, Platform", "MATLAB"),
        (b"\0" * 16 + b"\xde\xc0\xef\xbe", "LMDB"),
        (struct.pack("<QI", 99, 5) + b"\n\x61\n\x5f\n", "TFRecord"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"a,b\n1,2\n", "CSV"),
        (b'{"a": 1}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x80\x03cos\nsystem\n.", "unsafe"),
        (b"", "empty"),
        (b"\x01\x02\x03", "docs/upload.md"),
    ],
)
def test_the_error_of_an_unknown_upload_names_what_it_looks_like(tmp_path, head, words):
    (tmp_path / "upload").write_bytes(head)
    with (tmp_path / "upload").open("rb") as file, pytest.raises(PackError) as caught:
        list(archives.read(file, Meter(LIMITS, len(head))))
    if words != "unsafe":
        assert caught.value.code == "not_an_archive"
        assert words in caught.value.detail
        assert "docs/upload.md" in caught.value.detail
    else:
        assert caught.value.code == "unsafe_pickle"


def test_a_compressed_file_that_is_no_tar_is_named(tmp_path):
    for pack in (compress_gzip, lzma.compress, bz2.compress):
        with pytest.raises(PackError, match="CSV table"):
            read(tmp_path, pack(b"a,b\n1,2\n" * 100))


def test_every_format_that_the_sentence_names_is_recognised():
    for name in ("zip", "tar", "npz", "npy", "Parquet", "idx", "CIFAR"):
        assert name in formats.READ


# --- Parquet bombs ---------------------------------------------------------------------------------------------------


def repeated(value, count=20_000):
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [value])


BOMBS = {
    "rows": {"image": pa.array([png()] * 300_000)},
    "images": {"image": repeated(bytes(2**20))},
    "labels": {"image": pa.array([b"x"] * 20_000), "label": repeated("x" * 2**20)},
    "pixels": {"pixels": pa.array([np.zeros(10**6, np.uint8)] * 100)},
}


@pytest.mark.parametrize(
    ("kind", "typed"),
    [*((kind, False) for kind in BOMBS), ("labels", True)],  # with Arrow's own types
)
def test_a_small_parquet_of_gigabytes_is_refused_within_seconds(tmp_path, kind, typed):
    target = io.BytesIO()
    pq.write_table(pa.table(BOMBS[kind]), target, store_schema=typed)
    assert len(target.getvalue()) < 400_000
    limits = replace(LIMITS, unpacked_bytes=2**40, images=10**7)
    started = time.process_time()
    assert read_error(tmp_path, target.getvalue(), limits) == "bomb"
    assert time.process_time() - started < 10


def test_findings_and_items_are_all_that_a_good_upload_yields(tmp_path):
    assert read_items(tmp_path, make_zip())
    assert read_findings(tmp_path, make_zip()) == []
    assert not any(isinstance(found, Finding) for found in read(tmp_path, make_tar()))

"""File formats: which files hold images themselves, and what any other upload is taken for."""

import re
import tarfile
from typing import Literal

from ssl_core.data import leftovers
from ssl_core.data.formats import recognise
from worker.uploads import compressed

# What is read from a file that holds images: archive and parquet by itself, the others with their companions.
Kind = Literal["archive", "parquet", "npy", "idx", "cifar", "stl10", "text"]

READ = "zip, tar (also gz, bz2, xz or zst), npz, npy, Parquet, idx and CIFAR's batches"
_ARCHIVE_NAME = re.compile(r"\.(zip|npz|tar|tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_IDX_NAME = re.compile(r"idx\d-u?(byte|int|short|float|double)(\.gz)?$", re.IGNORECASE)
_CIFAR_NAME = re.compile(
    r"(^|/)((train_)?data_batch_\d+(\.bin)?|test_batch(\.bin)?|val_data|batches\.meta|train|test|meta|(train|test)\.bin)$"
)
_STL_NAME = re.compile(r"(^|/)(train|test|unlabeled)_[Xy]\.bin$")
_TEXT_NAME = re.compile(r"(^|/)(batches\.meta\.txt|(fine|coarse)_label_names\.txt|class_names\.txt)$")
_IMAGE_NAME = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|p[bgpn]m|avif|jp2|jpx|j2k)$", re.IGNORECASE)


def find_kind(name: str, head: bytes) -> Kind | None:
    """Return what is read from a file of an archive, by its name and its first bytes; None for any other file."""
    if _IMAGE_NAME.search(name) or leftovers.is_leftover(name):
        return None
    if _ARCHIVE_NAME.search(name) and is_archive(head):
        return "archive"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if is_idx(head) or (_IDX_NAME.search(name) and compressed.find_format(head) == "gz"):
        return "idx"
    if _STL_NAME.search(name):
        return "stl10"
    if _CIFAR_NAME.search(name) and (name.endswith(".bin") or is_pickle(head)):
        return "cifar"
    return "text" if _TEXT_NAME.search(name) else None


def is_archive(head: bytes) -> bool:
    """Return whether the file starts as a zip, a tar or a compressed file does."""
    return is_zip(head) or compressed.find_format(head) is not None or is_tar(head)


def is_zip(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def is_tar(head: bytes) -> bool:
    """Return whether the first 512 bytes start a tar archive, which may be empty."""
    if len(head) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return not any(head[: tarfile.BLOCKSIZE])
    return True


def is_idx(head: bytes) -> bool:
    """Return whether the file starts as an idx file of one to four dimensions does."""
    return len(head) >= 8 and head[:2] == b"\0\0" and head[2] in range(8, 15) and head[3] in range(1, 5)


def is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and head[1] in range(2, 6)


def is_image_name(name: str) -> bool:
    return _IMAGE_NAME.search(name) is not None


def explain(head: bytes) -> str:
    """Return the sentence for an upload of no format that is read."""
    taken = _describe(head)
    seen = f"The file looks like {taken}, not like" if taken else "The file is not"
    return f"{seen} an archive of a supported format: {READ}. {_advise(taken)}"


def explain_content(head: bytes) -> str:
    """Return the sentence for a compressed file that is no tar archive."""
    taken = _describe(head)
    content = f"its content looks like {taken}" if taken else "its content is not a tar archive"
    return f"The file is compressed, but {content}. {_advise(taken)}"


def _advise(taken: str | None) -> str:
    if taken is not None and "single" in taken:
        return "A dataset is an archive of images; docs/upload.md lists the formats."
    if taken is not None and taken.endswith("archive"):
        return "Pack its files again as a zip or a tar; docs/upload.md lists the formats."
    return "docs/upload.md lists the formats."


def _describe(head: bytes) -> str | None:
    """Return what the file is taken for."""
    if not head:
        return "an empty file"
    if (image := recognise.find_image(head)) is not None:
        return f"a single {image} image"
    if (
        len(head) > 16
        and head[4:8] == bytes(4)
        and 0 < int.from_bytes(head[:4], "little") < 2**24
        and head[12:13] == b"\n"
    ):
        return "a TFRecord file"
    if is_pickle(head):
        return "a Python pickle, which may hold code and is not executed"
    return recognise.find_other(head) or _describe_table(head)


def _describe_table(head: bytes) -> str | None:
    try:
        text = head.decode("utf-8-sig", "ignore" if len(head) >= 500 else "strict").strip()
    except UnicodeDecodeError:
        return None
    if not text or any(ord(letter) < 32 and letter not in "\t\r\n" for letter in text):
        return None
    first = text.splitlines()[0]
    return "a CSV table" if len(text) > len(first) and ("," in first or "\t" in first or ";" in first) else None

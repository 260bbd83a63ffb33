"""Folder layout: from the paths of a dataset's files to their splits and classes.

Supported are `<file>` (no labels), `<class>/…`, and `<split>/<class>/…` or `<split>/<file>`. Splits are recognised
when a training folder stands at the top level. Folders that wrap all files are stripped.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
SplitAndClass = tuple[Split, str | None]  # None: no label

_MAX_NAME = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DOCUMENT = re.compile(
    r"\.(txt|md|rst|json|jsonl|csv|tsv|xml|ya?ml|html?|pdf|docx?|xlsx?|py|ipynb|sh|mat|npy|pkl|log|ini|cfg|toml|sha256|md5)$"
    r"|(^|/)(readme|license|licence|copying|authors|changelog|makefile|thumbs\.db)[^/]*$",
    re.IGNORECASE,
)


class UnsafePath(ValueError):
    """The path is absolute or leads out of its archive."""


class NoTrainingSplit(ValueError):
    """All images are in val or test folders: there is no training split."""


def clean_path(raw: str) -> str:
    """Return the path with `/` as the separator and no character that a database or a terminal cannot store or print.

    Undecodable bytes and control characters become visible escapes. Raises UnsafePath.
    """
    path = raw.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", path):
        raise UnsafePath(clean_text(raw))
    return "/".join(clean_text(part) for part in parts)


def clean_text(raw: str) -> str:
    """Return the text in NFC, of bounded length, with surrogates and control characters as visible escapes."""
    text = raw[: 4 * _MAX_NAME].encode("utf-8", "surrogateescape" if _has_only_escapes(raw) else "backslashreplace")
    clean = unicodedata.normalize("NFC", text.decode("utf-8", "backslashreplace"))
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", clean)[:_MAX_NAME]


def fold_name(name: str) -> str:
    """Return the name case-folded and in NFKC, equal for names that differ only in case or Unicode form."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def is_junk(path: str) -> bool:
    """Return whether the path is a file of the operating system: dotfiles, `__MACOSX`, Thumbs.db."""
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in path.split("/"))


def is_document(path: str) -> bool:
    """Return whether the path has the name of a document, such as a README or a label file."""
    return _DOCUMENT.search(path) is not None


def parse_paths(paths: Sequence[str]) -> list[SplitAndClass | None]:
    """Return the split and the class of each path; None where it lies outside the split folders.

    Raises NoTrainingSplit.
    """
    depth = _count_wrapping_folders(paths)
    tops = {top for path in paths if (top := _folder_at(path, depth)) is not None}
    splits = {SPLIT_NAMES.get(top.casefold()) for top in tops}
    if "train" in splits:
        return [_parse_split_path(path.split("/")[depth:]) for path in paths]
    if splits and None not in splits and not any(_folder_at(path, depth) is None for path in paths):
        raise NoTrainingSplit(str(NoTrainingSplit.__doc__))
    return [("train", _folder_at(path, depth)) for path in paths]


def _has_only_escapes(raw: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" and not "\udc80" <= letter <= "\udcff" for letter in raw)


def _count_wrapping_folders(paths: Sequence[str]) -> int:
    """Return the number of top-level folders that contain all paths and are not splits."""
    if not paths:
        return 0
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        if first[depth].casefold() in SPLIT_NAMES:
            break
        depth += 1
    return depth


def _folder_at(path: str, depth: int) -> str | None:
    """Return the path's folder at that depth, or None."""
    parts = path.split("/", depth + 1)
    return parts[depth] if len(parts) > depth + 1 else None


def _parse_split_path(parts: list[str]) -> SplitAndClass | None:
    split = SPLIT_NAMES.get(parts[0].casefold()) if len(parts) > 1 else None
    if split is None:
        return None
    return split, parts[1] if len(parts) > 2 else None

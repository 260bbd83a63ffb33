"""Paths and names of files in an upload, cleaned: what a database can store and a terminal print."""

import re
import unicodedata

_MAX_NAME = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class UnsafePath(ValueError):
    """The path is absolute or leads out of its archive."""


def clean_path(raw: str) -> str:
    """Return the path with `/` as the separator and no character that a database or a terminal cannot store or print.

    Undecodable bytes and control characters become visible escapes. Raises UnsafePath.
    """
    path = raw.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:/", path):
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


def _has_only_escapes(raw: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" and not "\udc80" <= letter <= "\udcff" for letter in raw)

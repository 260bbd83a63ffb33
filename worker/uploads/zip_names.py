"""Names of the entries of zip archives: UTF-8, an Info-ZIP Unicode path, or a code page that is guessed.

Only the flag of an entry says that its name is UTF-8. Other names are in the code page of the system that packed them,
which the archive does not name.
"""

import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence

from ssl_core.data.items import Finding

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
_SAMPLE_BYTES = 2**16  # of the names of one archive
# In order of preference among equals. Names in cp437 always decode.
_CODE_PAGES = {
    "gbk": "GBK",
    "cp932": "Shift-JIS",
    "cp949": "EUC-KR",
    "big5": "Big5",
    "cp866": "code page 866",
    "cp437": "code page 437",
}


def decode(entries: Sequence[zipfile.ZipInfo]) -> tuple[list[str], Finding | None]:
    """Return the names of the entries, and a finding when their code page was guessed."""
    known = [_read_known_name(entry) for entry in entries]
    unknown = [_raw_name(entry) for entry, name in zip(entries, known, strict=True) if name is None]
    if not unknown:
        return [name for name in known if name is not None], None
    page = _guess_code_page(unknown)
    names = [
        _raw_name(entry).decode(page, "backslashreplace") if name is None else name
        for entry, name in zip(entries, known, strict=True)
    ]
    if page == "utf-8":
        return names, None
    detail = f"File names without a mark for UTF-8 are read as {_CODE_PAGES[page]}, which is a guess."
    example = next(text for text, name in zip(names, known, strict=True) if name is None)
    return names, Finding("guessed_names", detail, example, len(unknown))


def _raw_name(entry: zipfile.ZipInfo) -> bytes:
    """Return the bytes of the name up to a NUL. Without the flag `zipfile` decodes it as cp437, losslessly."""
    encoding = "utf-8" if entry.flag_bits & _UTF8_FLAG else "cp437"
    return entry.orig_filename.encode(encoding).partition(b"\0")[0]


def _read_known_name(entry: zipfile.ZipInfo) -> str | None:
    raw = _raw_name(entry)
    if entry.flag_bits & _UTF8_FLAG:
        return raw.decode()
    for kind, body in _iterate_extra_fields(entry.extra):
        if kind == _UNICODE_PATH and len(body) >= 5 and body[0] == 1:
            (checksum,) = struct.unpack("<I", body[1:5])
            try:
                if checksum == zlib.crc32(raw):
                    return body[5:].decode().partition("\0")[0]
            except UnicodeDecodeError:
                continue
    return raw.decode() if raw.isascii() else None


def _iterate_extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        yield kind, extra[4 : 4 + size]
        extra = extra[4 + size :]


def _guess_code_page(names: Sequence[bytes]) -> str:
    """Return the codec under which all the names together look most like words."""
    sample: list[bytes] = []
    size = 0
    for name in dict.fromkeys(names):
        sample.append(name)
        size += len(name)
        if size > _SAMPLE_BYTES:
            break
    if _decode_all(sample, "utf-8") is not None:
        return "utf-8"
    scores = {page: _score(text, page) for page in _CODE_PAGES if (text := _decode_all(sample, page)) is not None}
    return max(scores, key=scores.__getitem__, default="cp437")


def _decode_all(names: Sequence[bytes], encoding: str) -> str | None:
    try:
        return "/".join(name.decode(encoding) for name in names)
    except UnicodeDecodeError:
        return None


def _score(text: str, page: str) -> float:
    """Return how usual the letters outside ASCII are, each in its place, from −1 to 1 on average."""
    padded = f"/{text}/"
    places = [place for place, letter in enumerate(padded) if not letter.isascii()]
    rates = (_rate(padded[place - 1], padded[place], padded[place + 1], page) for place in places)
    return sum(rates) / max(1, len(places))


def _rate(before: str, letter: str, after: str, page: str) -> float:
    code = ord(letter)
    beside_ascii = _is_ascii_letter(before) or _is_ascii_letter(after)
    if code < 0x250 and unicodedata.category(letter).startswith("L"):  # among ASCII letters, as in café
        return 0.4 if _is_foreign_letter(before) or _is_foreign_letter(after) else 0.7
    if 0x0400 <= code <= 0x045F:
        return 0.8 if _is_foreign_letter(before) or _is_foreign_letter(after) else 0.3
    if 0x3040 <= code <= 0x30FF or 0x4E00 <= code <= 0x9FFF or 0xAC00 <= code <= 0xD7A3:
        if not _is_common(letter, page):
            return -0.5
        return 0.2 if beside_ascii else 0.9 + 0.1 * (code < 0x4E00 or code > 0x9FFF)  # kana and Hangul are certain
    return -1.0 if unicodedata.category(letter)[0] in "SC" or 0xFF61 <= code <= 0xFF9F else -0.3


def _is_ascii_letter(letter: str) -> bool:
    return letter.isascii() and letter.isalpha()


def _is_foreign_letter(letter: str) -> bool:
    return not letter.isascii() and letter.isalpha()


def _is_common(letter: str, page: str) -> bool:
    """Whether the letter stands in the part of its character set that holds those in daily use."""
    raw = letter.encode(page, "replace")
    if page == "gbk":
        return 0xB0 <= raw[0] <= 0xD7 and raw[-1] >= 0xA1
    if page == "cp932":
        return 0x82 <= raw[0] <= 0x83 or 0x88 <= raw[0] <= 0x98
    if page == "cp949":  # Hangul; the hanja that follow it are rare
        return 0xB0 <= raw[0] <= 0xC8 and raw[-1] >= 0xA1
    return page == "big5" and 0xA4 <= raw[0] <= 0xC6

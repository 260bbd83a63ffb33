"""Base64 of JSON bodies: RFC 4648 as tools write it, in lines, URL-safe, without padding, or as a data URI."""

import binascii
import re

_SPACES = b" \t\r\n\v\f"
_STANDARD = bytes.maketrans(b"-_", b"+/")
_DATA_URI = re.compile(r"\s*data:[^,]{0,1000},", re.IGNORECASE)
_OTHER = re.compile(rb"[^A-Za-z0-9+/_\-\s]")


def decode(text: object) -> bytes:
    """Return the bytes. Raises ValueError with a sentence that names the first wrong character and its place.

    Text of the standard alphabet with padding and without line ends is decoded in one pass.
    """
    if not isinstance(text, str):
        raise ValueError("It is not a text.")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return _decode_variant(text)


def _decode_variant(text: str) -> bytes:
    """Decode any of the other forms, which takes a few passes."""
    start = _find_data(text)
    try:
        data = text[start:].encode("ascii")
    except UnicodeEncodeError as error:
        raise _wrong_character(text, start + error.start) from error
    data = data.rstrip(_SPACES)
    padded = len(data)
    data = data.rstrip(b"=" + _SPACES)
    if wrong := _OTHER.search(data):
        raise _wrong_character(text, start + wrong.start())
    packed, padding = data.translate(_STANDARD, _SPACES), text.count("=", start + len(data), start + padded)
    missing = -len(packed) % 4
    if missing == 3:
        raise ValueError(f"Its {len(packed)} characters are one more or three fewer than whole groups of four.")
    if padding not in (0, missing):
        raise ValueError(f"It ends with {padding} `=`, where {missing} belong.")
    return binascii.a2b_base64(packed + b"=" * missing, strict_mode=True)


def _find_data(text: str) -> int:
    """Return where the base64 begins: after the head of a data URI (RFC 2397), if there is one."""
    head = _DATA_URI.match(text)
    if head is None:
        return 0
    if not head[0].rstrip(",").rstrip().lower().endswith(";base64"):
        raise ValueError("The data URI does not say `;base64` before its comma.")
    return head.end()


def _wrong_character(text: str, index: int) -> ValueError:
    return ValueError(f"Character {index + 1}, {text[index]!a}, is none of base64.")

"""Text that people send: what every database can store and every terminal can show."""

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from service.errors import InvalidRequest
from ssl_core.errors import Fault, json_pointer

MAX_LINE = 200
MAX_CLEANED = 65_536
MAX_METADATA = 50
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 500

# Control characters, lone surrogates, and characters that are none; also the separators of lines and paragraphs.
_UNWANTED = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})


def line(value: str, pointer: str, most: int = MAX_LINE) -> str:
    """Return `value` when it is one printable line of 1 to `most` characters. Raises InvalidRequest."""
    fault = _fault(value, pointer, most)
    if fault is None and not value.strip():
        fault = Fault(pointer=pointer, code="empty", detail="Must not be empty.")
    if fault is not None:
        raise InvalidRequest(f"{pointer}: {fault['detail']}", errors=[fault])
    return value


def metadata(value: Mapping[str, str], pointer: str = "/metadata") -> dict[str, str]:
    """Return `value` when it is at most 50 entries of key (64 characters) and text (500). Raises InvalidRequest."""
    if len(value) > MAX_METADATA:
        many = Fault(pointer=pointer, code="too_many", detail=f"At most {MAX_METADATA} entries.")
        raise InvalidRequest(f"{pointer}: {many['detail']}", errors=[many])
    faults = [_fault(key, pointer, MAX_METADATA_KEY) for key in value]
    faults += [_fault(item, _join(pointer, key), MAX_METADATA_VALUE) for key, item in value.items()]
    found = [fault for fault in faults if fault is not None]
    if found:
        raise InvalidRequest(f"{found[0]['pointer']}: {found[0]['detail']}", errors=found)
    return dict(value)


def printable(value: str) -> bool:
    """Tell whether no control character, lone surrogate or unassigned character is in `value`."""
    return not any(unicodedata.category(letter) in _UNWANTED for letter in value)


def cleaned(value: str, most: int) -> str:
    """Return what of `value` a database can store, at most `most` characters: for logs, which nobody should lose."""
    kept = value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return kept if len(kept) <= most else kept[: most - 1] + "…"


def cleaned_json(value: Any, depth: int = 32) -> Any:
    """Return `value` with its strings cleaned, its non-finite numbers null, and nothing nested beyond `depth`."""
    if isinstance(value, str):
        return cleaned(value, MAX_CLEANED)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {cleaned(str(key), MAX_LINE): cleaned_json(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned_json(item, depth - 1) for item in value]
    return value


def _fault(value: object, pointer: str, most: int) -> Fault | None:
    if not isinstance(value, str):
        return Fault(pointer=pointer, code="string_type", detail="Must be a string.")
    if len(value) > most:
        return Fault(pointer=pointer, code="too_long", detail=f"Must be at most {most} characters.")
    if not printable(value):
        return Fault(pointer=pointer, code="not_printable", detail="Must not hold control characters.")
    return None


def _join(pointer: str, key: str) -> str:
    return pointer + json_pointer(key.encode("utf-8", "replace").decode())

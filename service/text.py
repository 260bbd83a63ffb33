"""Text validation: checks strings from clients and cleans those from trainers, so that databases can store them."""

import math
import os
import re
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

# Unicode categories: control, surrogate, line separator, paragraph separator. `api.parameters.patterns` has them too.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def check_line(value: str, pointer: str, max_length: int = MAX_LINE) -> str:
    """Return `value` when it is one printable line of 1 to `max_length` characters. Raises InvalidRequest."""
    fault = _find_fault(value, pointer, max_length)
    if fault is None and not value.strip():
        fault = Fault(pointer=pointer, code="empty", detail="Must not be empty.")
    if fault is not None:
        raise InvalidRequest(f"{pointer}: {fault['detail']}", errors=[fault])
    return value


def check_metadata(value: Mapping[str, str], pointer: str = "/metadata") -> dict[str, str]:
    """Return `value` when it has at most 50 entries, of keys up to 64 and texts up to 500 characters. Raises
    InvalidRequest."""
    if len(value) > MAX_METADATA:
        fault = Fault(pointer=pointer, code="too_many", detail=f"At most {MAX_METADATA} entries.")
        raise InvalidRequest(f"{pointer}: {fault['detail']}", errors=[fault])
    faults = [_find_fault(key, pointer, MAX_METADATA_KEY) for key in value]
    faults += [_find_fault(item, _join(pointer, key), MAX_METADATA_VALUE) for key, item in value.items()]
    found = [fault for fault in faults if fault is not None]
    if found:
        raise InvalidRequest(f"{found[0]['pointer']}: {found[0]['detail']}", errors=found)
    return dict(value)


def is_printable(value: str) -> bool:
    """Whether `value` has no control character, lone surrogate or line separator."""
    return not any(unicodedata.category(letter) in _UNPRINTABLE for letter in value)


def hide_paths(value: str) -> str:
    """Return `value` with each absolute path of this machine replaced by its last part: users see no server path.

    A path begins with the name of a folder that exists at the root, so JSON pointers such as `/config/method` are kept.
    """
    if "/" not in value:
        return value
    unquoted = _QUOTED_PATH.sub(lambda found: found[1] + found[2].rstrip("/").rpartition("/")[2] + found[1], value)
    return _PATH.sub(lambda found: found[0].rpartition("/")[2], unquoted)


_ROOTS = "|".join(sorted((re.escape(entry.name) for entry in os.scandir("/") if entry.is_dir()), key=len, reverse=True))
_PATH = re.compile(rf"(?<![\w.:/~-])/(?:{_ROOTS})(?:/[^\s/'\"`:;,()<>\[\]{{}}|]+)+")
_QUOTED_PATH = re.compile(rf"(['\"])(/(?:{_ROOTS})/[^'\"\n]*)\1")  # may have spaces


def clean(value: str, max_length: int) -> str:
    """Return `value` without server paths, with what no database can store replaced, cut to `max_length` characters:
    for log messages."""
    text = hide_paths(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def clean_json(value: Any, depth: int = 32) -> Any:
    """Return `value` with its strings cleaned, and null for non-finite numbers and for values nested beyond `depth`."""
    if isinstance(value, str):
        return clean(value, MAX_CLEANED)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {clean(str(key), MAX_LINE): clean_json(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_json(item, depth - 1) for item in value]
    return value


def _find_fault(value: object, pointer: str, max_length: int) -> Fault | None:
    if not isinstance(value, str):
        return Fault(pointer=pointer, code="string_type", detail="Must be a string.")
    if len(value) > max_length:
        return Fault(pointer=pointer, code="too_long", detail=f"Must be at most {max_length} characters.")
    if not is_printable(value):
        return Fault(pointer=pointer, code="not_printable", detail="Must not contain control characters.")
    return None


def _join(pointer: str, key: str) -> str:
    return pointer + json_pointer(key.encode("utf-8", "replace").decode())

"""JSON documents with a checksum: the field `checksum` is the SHA-256 of the other fields. Imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_core.errors import Corrupt

FIELD = "checksum"


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with its checksum as the last field, as it is read back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    plain.pop(FIELD, None)
    return {**plain, FIELD: _compute(plain)}


def read(path: Path) -> dict[str, Any]:
    """Return the document in a file. One without a checksum, of an earlier version, is not checked.

    Raises OSError, and Corrupt when it is no JSON object or does not have its checksum.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Corrupt(path.name) from error
    if not isinstance(document, dict) or (FIELD in document and document[FIELD] != _compute(document)):
        raise Corrupt(path.name)
    return document


def _compute(document: Mapping[str, Any]) -> str:
    fields = {name: value for name, value in document.items() if name != FIELD}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

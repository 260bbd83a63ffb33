"""Hooks of Schemathesis, which make valid requests reach what exists.

Ids are those of `FUZZ_EXISTING` (JSON) in three of four valid requests, images of `/embed` are images in one of two,
and the Idempotency-Key of each is new, as clients are to choose it. Invalid requests are sent as they are, except that
none deletes the key that all use.
"""

import base64
import io
import itertools
import json
import os
from collections.abc import Mapping
from typing import Any

import schemathesis
from PIL import Image
from schemathesis import Case, HookContext

_EXISTING: dict[str, str] = json.loads(os.environ["FUZZ_EXISTING"])
_OWN_KEY = _EXISTING.pop("key_id")
_NUMBERS = itertools.count()
_HEADER = "idempotency-key"
_MAX_LENGTH = 255


@schemathesis.hook
def before_call(context: HookContext, case: Case, arguments: dict) -> None:
    """Change a valid case as the module describes. What is changed is copied: cases share parts."""
    if (case.path_parameters or {}).get("key_id") == _OWN_KEY:
        case.path_parameters = {**case.path_parameters, "key_id": "key_0"}
    if case.meta is None or case.meta.generation.mode.is_negative:
        return
    number = next(_NUMBERS)
    for name, value in list((case.headers or {}).items()):
        if name.lower() == _HEADER and isinstance(value, str) and value:
            case.headers[name] = f"{number:x}{value}"[:_MAX_LENGTH]
    is_object = isinstance(case.body, dict)
    if number % 4 and case.method.upper() != "DELETE":
        case.path_parameters = _with_existing(case.path_parameters or {}, _EXISTING)
        if is_object:
            case.body = _with_existing(case.body, {name: _EXISTING[f"{name}_id"] for name in ("dataset", "model")})
    if number % 2 and is_object and "images" in case.body:
        case.body = {**case.body, "images": _image_like(case.body["images"])}


def _with_existing(values: Mapping[str, Any], existing: Mapping[str, str]) -> dict[str, Any]:
    """Return the values with what exists in place of strings of the same names."""
    return {name: existing.get(name, value) if isinstance(value, str) else value for name, value in values.items()}


def _image_like(value: Any) -> Any:
    """Return a picture in the form of the value: base64 strings in JSON, bytes in a form."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    if isinstance(value, list):
        return [_image_like(value[0])] if value else value
    return base64.b64encode(buffer.getvalue()).decode() if isinstance(value, str) else buffer.getvalue()

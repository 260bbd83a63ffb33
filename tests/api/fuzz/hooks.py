"""Hooks of Schemathesis, which make valid requests reach what exists.

Ids are those of `FUZZ_EXISTING` (JSON) in three of four valid requests, images of `/embed` are images in one of two,
one of three new jobs has a config that its kind accepts, since random ones break rules that a schema does not say,
streams are of the job that has ended, as those of others do not end, and the Idempotency-Key of each is new, as clients
are to choose it. Invalid requests are sent as they are, except that none deletes the key that all use.
"""

import base64
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import schemathesis
from schemathesis import Case, HookContext

from tests.worker.encoder import pictures

_EXISTING: dict[str, str] = json.loads(os.environ["FUZZ_EXISTING"])
_OWN_KEY = _EXISTING.pop("key_id")
_NUMBERS = itertools.count()
_HEADER = "idempotency-key"
_COMPARISONS = {"/jobs/compare": {"ids": _EXISTING["job_id"]}, "/leaderboard": {"dataset": _EXISTING["dataset_id"]}}
_MAX_LENGTH = 255
_JOBS: Iterator[dict[str, Any]] = itertools.cycle(
    [
        {"kind": "pretrain", "config": {"method": {"name": "simclr"}}, "model": None},
        {"kind": "knn_eval", "config": {}, "model": _EXISTING["model_id"]},
        {"kind": "supervised", "config": {"epochs": 1}, "model": None},
    ]
)
_IMAGE = base64.b64encode(pictures.png(1)).decode()


@schemathesis.hook
def before_call(context: HookContext, case: Case, arguments: dict) -> None:
    """Change a valid case as the module describes. What is changed is copied: cases share parts."""
    if (case.path_parameters or {}).get("key_id") == _OWN_KEY:
        case.path_parameters = {**case.path_parameters, "key_id": "key_0"}
    if case.path.endswith("/stream") and str((case.path_parameters or {}).get("job_id", "")).startswith("job_"):
        case.path_parameters = {**case.path_parameters, "job_id": _EXISTING["job_id"]}
    if case.meta is None or case.meta.generation.mode.is_negative:
        return
    number = next(_NUMBERS)
    for name, value in list((case.headers or {}).items()):
        if name.lower() == _HEADER and isinstance(value, str) and value:
            case.headers[name] = f"{number:x}{value}"[:_MAX_LENGTH]
    # Schemathesis takes a form that was changed for an invalid one: it cannot validate bytes.
    is_object = isinstance(case.body, dict) and case.media_type == "application/json"
    if number % 4 and case.method.upper() != "DELETE":
        case.path_parameters = _with_existing(case.path_parameters or {}, _EXISTING)
        if case.path in _COMPARISONS:
            case.query = {**(case.query or {}), **_COMPARISONS[case.path]}
        if is_object:
            named = {name: _EXISTING[f"{name}_id"] for name in ("dataset", "model")}
            case.body = _with_existing(case.body, named | {"job": _EXISTING["embedded_id"]})
    if number % 3 == 0 and is_object and case.path == "/jobs":
        case.body = {**case.body, **next(_JOBS)}
    if number % 2 and is_object and "images" in case.body:
        case.body = {**case.body, "images": [_IMAGE]}
    if number % 2 and is_object and "image" in case.body:
        case.body = {**case.body, "image": _IMAGE}


def _with_existing(values: Mapping[str, Any], existing: Mapping[str, str]) -> dict[str, Any]:
    """Return the values with what exists in place of strings of the same names."""
    return {name: existing.get(name, value) if isinstance(value, str) else value for name, value in values.items()}

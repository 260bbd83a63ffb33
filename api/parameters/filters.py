"""Filters of lists by a value of a closed set: another value would match nothing, and is refused."""

import difflib
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

from fastapi import Query

from service.errors import InvalidRequest
from ssl_core.errors import Fault

_COMPARED, _COMPARED_LENGTH = 500, 64  # known values, and their characters: a dataset may have 100,000 long ones
_LISTED = 20


def one_of(known: Iterable[str]) -> Any:  # as FastAPI's Query is typed
    """Return the query parameter whose value `check` takes: documented here, and refused there with the closest one."""
    return Query(max_length=64, json_schema_extra={"enum": [str(value) for value in known]})


def check(name: str, value: str | None, known: Collection[str], what: str = "") -> None:
    """Raise InvalidRequest, which lists the known values, when the filter `name` has another one.

    what: of what it is the name, if not of the filter itself.
    """
    if value is None or value in known:
        return
    close = difflib.get_close_matches(value, _choose_comparable(value, known), n=1)
    listed = ", ".join(islice(known, _LISTED)) + (", …" if len(known) > _LISTED else ".")
    guess = f"did you mean `{close[0]}`? There are " if close else "there are "
    hint = guess + listed if known else "there are none."
    detail = f"There is no {what or name} `{value}`; {hint}"
    raise InvalidRequest(detail, errors=[Fault(pointer=name, code="enum", detail=detail)])


def _choose_comparable(value: str, known: Collection[str]) -> list[str]:
    """Return the known values to compare the value with, which takes long for many and for long ones."""
    if len(value) > _COMPARED_LENGTH:
        return []
    return [each for each in islice(known, _COMPARED) if len(each) <= _COMPARED_LENGTH]

"""Errors of a config: what pydantic found wrong, as places and sentences."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ssl_core.config.exchange import Import
from ssl_core.config.kinds import KINDS
from ssl_core.errors import Fault, json_pointer

MAX_FAULTS = 100
_MAX_NAME = 64  # characters of an unknown field's name that are repeated


def faults(error: ValidationError, kind: str | None, root: type[BaseModel] = Import) -> list[Fault]:
    """Return what is wrong as `{pointer, code, detail}`, the first hundred; pointers (RFC 6901) start at the config.

    kind: the kind of run that the config is for; None for a config of the class `root`.
    """
    found: dict[str, Fault] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        fault = _fault(item, KINDS[kind] if kind is not None else root)
        found.setdefault(fault["pointer"], fault)  # a union reports an error for each of its members
        if len(found) == MAX_FAULTS:
            break
    # Of a list with a wrong item, pydantic also says that it is too short, or that it is not "auto".
    return [fault for place, fault in found.items() if not any(other.startswith(place + "/") for other in found)]


def _fault(item: ErrorDetails, root: type[BaseModel]) -> Fault:
    unknown = item["type"] == "extra_forbidden"
    place, model = _walk(item["loc"][:-1] if unknown else item["loc"], root)
    detail = item["msg"].removeprefix("Value error, ")
    if unknown:
        place.append(str(item["loc"][-1])[:_MAX_NAME])
        names = difflib.get_close_matches(str(place[-1]), list(model.model_fields), n=1)
        detail = f"There is no field `{place[-1]}` here" + (f"; did you mean `{names[0]}`?" if names else ".")
    return Fault(pointer=json_pointer(*place), code=item["type"], detail=detail)


def _walk(loc: tuple[int | str, ...], root: type[BaseModel]) -> tuple[list[int | str], type[BaseModel]]:
    """Follow pydantic's location from `root`; return the JSON path, without the tags of unions, and the last model."""
    place: list[int | str] = []
    model, options = root, [root]
    for part in loc:
        if isinstance(part, int):
            place.append(part)
        elif part in model.model_fields:
            place.append(part)
            options = _models(model.model_fields[part].annotation)
            model = options[0] if options else model
        else:  # the tag of a union's member
            model = next((option for option in options if _tag(option) == part), model)
    return place, model


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return field.default if field else None

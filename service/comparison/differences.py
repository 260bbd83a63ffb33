"""Differences of configs: the fields that have not the same value in all of them."""

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from ssl_core.errors import json_pointer

MAX_ITEMS = 100  # of a list of plain values that are shown
_Pointer = tuple[str | int, ...]


class Difference(TypedDict):
    """A field, as a JSON pointer into the configs, and its value by the name of the config.

    A config that does not have the field is left out.
    """

    pointer: str
    values: dict[str, Any]


def find(configs: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """Return the fields that differ, in the order in which the configs have them.

    Objects, and lists with objects, are compared field by field; other lists as a whole, of which MAX_ITEMS are shown.
    """
    fields: dict[_Pointer, dict[str, Any]] = {}
    for name, config in configs.items():
        for pointer, value in _flatten(config, ()):
            fields.setdefault(pointer, {})[name] = value
    return [
        {"pointer": json_pointer(*pointer), "values": {name: _shorten(value) for name, value in values.items()}}
        for pointer, values in fields.items()
        if len(values) < len(configs) or _differ([*values.values()])
    ]


def _flatten(value: Any, pointer: _Pointer) -> Iterator[tuple[_Pointer, Any]]:
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, Mapping):
        items = [*value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        items = [*enumerate(value)]
    if not items and pointer:
        yield pointer, value
    for key, item in items:
        yield from _flatten(item, (*pointer, key))


def _differ(values: list[Any]) -> bool:
    """Whether the values are not all the same; true is not 1."""
    return any(value != values[0] or isinstance(value, bool) != isinstance(values[0], bool) for value in values)


def _shorten(value: Any) -> Any:
    return value[:MAX_ITEMS] if isinstance(value, list) else value

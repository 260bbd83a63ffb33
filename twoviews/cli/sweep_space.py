"""The space of a sweep from `--vary` options, and its pruner from `--pruner`."""

import json
from collections.abc import Iterable
from typing import Any

_FLAGS = {"log": "log", "int": "integer"}


def parse(options: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the space: `path=a,b` and `path=[a, b]` are values, `path=low..high` with `:log`, `:int` or `:n` a range.

    Raises ValueError.
    """
    space: dict[str, dict[str, Any]] = {}
    for option in options:
        path, equals, text = option.partition("=")
        if not equals or not path or not text:
            raise ValueError(f"--vary takes path=values, as in method.temperature=0.1,0.2, not {option!r}.")
        pointer = "/" + path.replace(".", "/")
        if pointer in space:
            raise ValueError(f"--vary {path} is given twice.")
        space[pointer] = _parse_range(text) if ".." in text else {"values": _parse_values(text)}
    return space


def parse_pruner(text: str) -> dict[str, Any]:
    """Return the pruner: a name, or JSON. Raises ValueError."""
    if not text.lstrip().startswith("{"):
        return {"name": text}
    pruner = json.loads(text)
    return dict(pruner)


def _parse_range(text: str) -> dict[str, Any]:
    numbers, *flags = text.split(":")
    low, _, high = numbers.partition("..")
    try:
        found: dict[str, Any] = {"low": float(low), "high": float(high)}
        for flag in flags:
            found |= {_FLAGS[flag]: True} if flag in _FLAGS else {"points": int(flag)}
    except ValueError as error:
        example = "0.01..1, 0.01..1:log or 64..512:log:int:4"
        raise ValueError(f"A range is written as in {example}, not {text!r}.") from error
    return found


def _parse_values(text: str) -> list[Any]:
    found = _parse_one(text if text.lstrip().startswith("[") else f"[{text}]")
    return found if isinstance(found, list) else [_parse_one(part) for part in text.split(",")]


def _parse_one(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()

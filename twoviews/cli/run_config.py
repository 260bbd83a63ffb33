"""A run's config, put together from a file or text, a recipe, and single settings."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

Recipes = Callable[[], Sequence[Mapping[str, Any]]]


def build(text: str | None, recipe: str | None, changes: Iterable[str], recipes: Recipes) -> dict[str, Any]:
    """Return the recipe's config, overlaid with that of `text` (a file or JSON), then with `path=value` changes.

    Raises ValueError.
    """
    config = _recipe(recipe, recipes) if recipe else {}
    if text:
        overlay(config, _read(text))
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals or not path:
            raise ValueError(f"--set takes path=value, as in method.temperature=0.1; not {change!r}.")
        place(config, path.split("."), _value(value))
    return config


def overlay(base: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Put `other` over `base`: objects are merged, anything else is replaced."""
    for name, value in other.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), dict):
            overlay(base[name], value)
        else:
            base[name] = value


def place(config: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the field at `path`, making the objects on the way. Raises ValueError."""
    for part in path[:-1]:
        config = config.setdefault(part, {})
        if not isinstance(config, dict):
            raise ValueError(f"{'.'.join(path)}: {part} is not an object.")
    config[path[-1]] = value


def _recipe(name: str, recipes: Recipes) -> dict[str, Any]:
    known = {str(recipe["name"]): recipe for recipe in recipes()}
    if name not in known:
        raise ValueError(f"There is no recipe {name}; there are: {', '.join(sorted(known)) or 'none'}.")
    return deepcopy(dict(known[name]["config"]))


def _read(text: str) -> dict[str, Any]:
    source = text if text.lstrip().startswith("{") else Path(text).read_text()
    try:
        config = json.loads(source)
    except ValueError as error:
        raise ValueError(f"The config is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ValueError("The config must be a JSON object.")
    return config


def _value(text: str) -> Any:
    """Return JSON as what it says, and anything else as a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text

"""Job configs from a recipe, a JSON file or text, and `--set` options."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

Recipes = Callable[[], Sequence[Mapping[str, Any]]]


def build(text: str | None, recipe: str | None, changes: Iterable[str], recipes: Recipes) -> dict[str, Any]:
    """Merge the recipe's config, that of `text` (a file or JSON), and `path=value` changes, in this order.

    Raises ValueError.
    """
    config = _find_recipe(recipe, recipes) if recipe else {}
    if text:
        merge(config, _read_config(text))
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals or not path:
            raise ValueError(f"--set takes path=value, as in method.temperature=0.1, not {change!r}.")
        set_field(config, path.split("."), _parse_value(value))
    return config


def merge(base: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Merge `other` into `base`: objects are merged, other values replaced."""
    for name, value in other.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), dict):
            merge(base[name], value)
        else:
            base[name] = value


def set_field(config: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the field at `path` and create missing objects. Raises ValueError."""
    for part in path[:-1]:
        config = config.setdefault(part, {})
        if not isinstance(config, dict):
            raise ValueError(f"{'.'.join(path)}: {part} is not an object.")
    config[path[-1]] = value


def _find_recipe(name: str, recipes: Recipes) -> dict[str, Any]:
    by_name = {str(recipe["name"]): recipe for recipe in recipes()}
    if name not in by_name:
        raise ValueError(f"There is no recipe {name}; the recipes are: {', '.join(sorted(by_name)) or 'none'}.")
    return deepcopy(dict(by_name[name]["config"]))


def _read_config(text: str) -> dict[str, Any]:
    source = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
    try:
        config = json.loads(source)
    except ValueError as error:
        raise ValueError(f"The config is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ValueError("The config must be a JSON object.")
    return config


def _parse_value(text: str) -> Any:
    """Parse the text as JSON; text that is not JSON is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text

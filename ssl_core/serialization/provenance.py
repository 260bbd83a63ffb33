"""Provenance: whose model it is and what it grew from, as far as whoever started the run told.

Told is a JSON object: `job`, `name`, `dataset` with `id`, `name` and `licence`, and `model`, the one to start from,
with `id` and `name`. All of it may be left out, and nothing of it changes the run.
"""

from collections.abc import Mapping
from typing import Any

Told = Mapping[str, Any]


def about(told: Told, start: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the new model's card says of its origin; `start` is the card of the model it starts from."""
    known = {"name": told.get("name"), "job": told.get("job"), "dataset": told.get("dataset")}
    lineage = [*start.get("lineage", []), _ancestor(told.get("model") or {}, start)] if start is not None else None
    return {name: value for name, value in {**known, "lineage": lineage}.items() if value}


def _ancestor(told: Told, card: Mapping[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in card.get("dataset", {}).items() if name != "classes"}
    entry = {"id": told.get("id"), "name": told.get("name") or card.get("name"), "method": card.get("method")}
    return {name: value for name, value in {**entry, "dataset": data}.items() if value}

"""Provenance of a model: the job, the dataset and the lineage of models that it was trained from.

`Provenance` is a JSON object: `job`, `name`, `dataset` with `id`, `name` and `licence`, and `model`, the one to start
from, with `id` and `name`. All fields are optional, and none changes the run.
"""

from collections.abc import Mapping
from typing import Any

Provenance = Mapping[str, Any]


def build_card_fields(provenance: Provenance, start: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the provenance fields of the new model's card; start: the card of the model it starts from."""
    fields = {"name": provenance.get("name"), "job": provenance.get("job"), "dataset": provenance.get("dataset")}
    if start is not None:
        fields["lineage"] = [*start.get("lineage", []), _build_ancestor(provenance.get("model") or {}, start)]
    return {name: value for name, value in fields.items() if value}


def _build_ancestor(model: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in card.get("dataset", {}).items() if name != "classes"}
    entry = {"id": model.get("id"), "name": model.get("name") or card.get("name"), "method": card.get("method")}
    return {name: value for name, value in {**entry, "dataset": data}.items() if value}

"""Resuming: a run goes on from a checkpoint whose config and dataset agree with its own."""

import json
from collections.abc import Iterator
from typing import Any

from ssl_core.config import TrainingRun
from ssl_core.config.views import RGB
from ssl_core.errors import BadCheckpoint
from ssl_core.events import Log
from ssl_core.training.loop import Training
from ssl_core.training.saving import fingerprint
from ssl_core.training.training_data import TrainingData


def load_resolved_config(asked: TrainingRun, saved: dict[str, Any]) -> TrainingRun:
    """Return the resolved config in a loaded checkpoint. Raises BadCheckpoint when `asked` cannot resolve to it."""
    try:
        backbone = {"channels": RGB} | saved["config"]["backbone"]  # without it in an earlier version's
        resolved = type(asked).model_validate_json(json.dumps(saved["config"] | {"backbone": backbone}))
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint("The checkpoint holds no config of this version.") from error
    if differing := _difference(asked.model_dump(mode="json"), resolved.model_dump(mode="json")):
        raise BadCheckpoint(f"The checkpoint is of a run with another `{differing}`.")
    return resolved.model_copy(update={"devices": asked.devices})  # the same run on another number of them


def _difference(asked: Any, resolved: Any, place: str = "") -> str | None:
    """The first place where a resolved value is not one that the asked one leaves open."""
    if isinstance(asked, dict) and isinstance(resolved, dict):
        for name in asked.keys() & resolved.keys() - {"minutes", "devices"}:  # minutes have become epochs
            if found := _difference(asked[name], resolved[name], f"{place}.{name}".removeprefix(".")):
                return found
        return None
    return None if asked in ("auto", None) or asked == resolved else place


def resume(training: Training, data: TrainingData, saved: dict[str, Any]) -> Iterator[Log]:
    """Restore the training run from a loaded checkpoint, and say so. Raises BadCheckpoint when it is of another run."""
    if saved["dataset"] != fingerprint(data):
        raise BadCheckpoint("The checkpoint is of a run on other images.")
    training.resume(saved)
    yield Log("info", f"Going on from the checkpoint of step {saved['step']}.", "resumed", {"step": saved["step"]})
    then, now = saved["versions"], training.versions()
    if then != now:
        message = "The checkpoint was written under other versions or on other hardware; weights may differ slightly."
        yield Log("warning", message, "versions_differ", {"then": then, "now": now})

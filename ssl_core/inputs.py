"""What a run is given: its dataset, its model, a checkpoint to resume from, and when to stop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Inputs:
    """What a run works on: folders and files that exist."""

    dataset: Path  # a packed dataset
    model: Path | None = None  # the artifact to start from or to judge
    checkpoint: Path | None = None  # where to go on from
    stop: Callable[[], bool] = _never  # asked before every step
    provenance: Mapping[str, Any] = field(
        default_factory=dict
    )  # what to tell in the model's card (ssl_core.serialization.provenance)

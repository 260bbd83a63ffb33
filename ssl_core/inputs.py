"""What a run is given: its dataset, its model, a checkpoint to resume from, and when to stop."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Inputs:
    """What a run works on: folders and files that exist."""

    dataset: Path  # a packed dataset
    model: Path | None = None  # the saved model to start from or to evaluate
    checkpoint: Path | None = None  # to resume from
    stop: Callable[[], bool] = _never  # asked before every step
    # where the run comes from, for the model's card (ssl_core.serialization.provenance)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    # old checkpoints are left for the reader of the events, who deletes them once the newer ones are recorded
    keeps_checkpoints: bool = False
    # the shards to compute, as JSON values (ssl_core.embedding.requests), and None while none is asked for; without it
    # the run computes all
    requests: Iterable[Mapping[str, Any] | None] | None = None

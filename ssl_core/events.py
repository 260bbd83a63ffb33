"""Events: what a run yields, one frozen dataclass per event, and the JSON line each becomes.

A run yields these values (`for event in run(...)`); the process that hosts it writes each as one line. The supervisor
reads them back without torch. Anything that speaks this protocol can be supervised.

The order is guaranteed: every metric of a step up to S is yielded before the checkpoint of step S, so that stored
events have no gap when the run is resumed from that checkpoint.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The resolved config; running it again gives the same run."""

    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Named numbers at a step; `epoch` may be a fraction, `time` is Unix seconds. A non-finite value is None."""

    step: int
    epoch: float
    time: float
    values: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Progress:
    epoch: int
    epochs: int
    step: int
    total_steps: int
    images_per_second: float
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file from which the run can be resumed, complete on disk; `path` is relative to the run's directory."""

    step: int
    epoch: float
    path: str
    sha256: str
    size_bytes: int
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file for the user (figure, coordinates, export); `path` is relative to the run's directory."""

    name: str
    path: str
    media_type: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard of embeddings, complete on disk in the run's directory (`ssl_core.config.embedding.name_files`)."""

    number: int
    first_row: int
    rows: int
    npy_sha256: str
    npy_bytes: int
    parquet_sha256: str
    parquet_bytes: int


@dataclass(frozen=True, slots=True)
class Model:
    """A saved model (`ssl_core.serialization.saved_model`); `path` is its folder, relative to the run's directory."""

    path: str
    sha256: str
    size_bytes: int
    dim: int
    card: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Log:
    """A sentence for the user; `data` is its evidence. A collapse is a warning with code `collapse`."""

    level: Level
    message: str
    code: str = "log"
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """The last event of a run that succeeded, with its summary."""

    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event of a run that was stopped by SIGTERM, after its checkpoint, if any."""

    step: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a run that cannot go on. `retry` is False for an invalid request or a diverged loss."""

    code: str
    message: str
    retry: bool = False
    data: dict[str, Any] = field(default_factory=dict)


Event = Resolved | Metrics | Progress | Checkpoint | Artifact | Shard | Model | Log | Result | Stopped | Failed

_TYPES: dict[str, type[Event]] = {
    "resolved": Resolved,
    "metrics": Metrics,
    "progress": Progress,
    "checkpoint": Checkpoint,
    "artifact": Artifact,
    "shard": Shard,
    "model": Model,
    "log": Log,
    "result": Result,
    "stopped": Stopped,
    "failed": Failed,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def to_line(event: Event) -> str:
    """Return the event as one JSON line, newline included. Raises ValueError on NaN or infinity."""
    return json.dumps({"event": _NAMES[type(event)], **asdict(event)}, allow_nan=False, separators=(",", ":")) + "\n"


def from_line(line: str | bytes) -> Event:
    """Return the event on the line. Raises ValueError when the line is not one."""
    try:
        fields = json.loads(line)
        return _TYPES[fields.pop("event")](**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {line[:200]!r}") from error

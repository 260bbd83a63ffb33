"""Values: what the service answers, as frozen data.

Each keeps the whole answer in `raw`, so a field that a newer service adds is never lost and never in the way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

Json = Mapping[str, Any]
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Anything that the service answers with an id."""

    id: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def of(cls, answer: Json) -> Self:
        """Return the value that the JSON object `answer` describes; unknown fields stay in `raw` alone."""
        known = {spot.name: answer[spot.name] for spot in fields(cls) if spot.name != "raw" and spot.name in answer}
        return cls(**known, raw=answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(Value):
    """An upload; `report` says what was found in it, once it is ready. Times are RFC 3339."""

    name: str = ""
    status: str = "validating"  # validating | ready | failed
    size_bytes: int = 0
    report: Json | None = field(default=None, repr=False)
    error: Json | None = None
    created_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Value):
    """A run that was asked for."""

    kind: str = ""
    status: str = "queued"
    name: str | None = None
    dataset: str | None = None
    config: Json = field(default_factory=dict, repr=False)
    resolved: Json | None = field(default=None, repr=False)
    progress: Json | None = None
    summary: Json | None = field(default=None, repr=False)
    supervised: Sequence[Json] = field(default=(), repr=False)  # to hold an accuracy against
    error: Json | None = None
    attempt: int = 0
    model_id: str | None = None
    priority: int = 0
    created_at: str = ""

    @property
    def done(self) -> bool:
        """Whether the job has ended; its status will not change again."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Value):
    """A trained encoder that a job left."""

    name: str = ""
    job_id: str = ""
    dim: int = 0
    sha256: str = ""
    size_bytes: int = 0
    card: Json = field(default_factory=dict, repr=False)
    created_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Value):
    """A bearer key; `key` is the secret itself and is there only when the key was just made."""

    name: str = ""
    key: str | None = field(default=None, repr=False)
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: four columns of equal length. `time` is Unix seconds; `epoch` may be a fraction."""

    name: str
    step: tuple[int, ...]
    epoch: tuple[float, ...]
    time: tuple[float, ...]
    value: tuple[float | None, ...]

    @classmethod
    def of(cls, answer: Json) -> Self:
        columns = (tuple(answer.get(column, ())) for column in ("step", "epoch", "time", "value"))
        return cls(answer["name"], *columns)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Series by name, and the cursor `last`: ask with `after=last` for what comes next."""

    series: Mapping[str, Series]
    last: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def of(cls, answer: Json) -> Self:
        return cls({item["name"]: Series.of(item) for item in answer["series"]}, answer["last"] or 0, answer)


@dataclass(frozen=True, slots=True)
class Update:
    """What is new about a job: the job itself, and the points that came since the update before."""

    job: Job
    metrics: Metrics

"""Values: the service's JSON objects as frozen dataclasses.

Each keeps the whole object in `raw`, with fields that a newer service may add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

Json = Mapping[str, Any]


class JobStatus(StrEnum):
    """The statuses of a job. `Job.status` is a plain string, which a newer service may add to."""

    description: str

    def __new__(cls, value: str, description: str) -> Self:
        member = str.__new__(cls, value)
        member._value_, member.description = value, description
        return member

    WAITING = "waiting", "Waits for another job to make its model."
    QUEUED = "queued", "Waits for a worker."
    RUNNING = "running", "A worker runs an attempt."
    PAUSING = "pausing", "Writes a checkpoint before it is paused."
    PAUSED = "paused", "Paused; its checkpoints are kept."
    CANCELLING = "cancelling", "Writes a checkpoint before it is cancelled."
    SUCCEEDED = "succeeded", "Ended with a result."
    FAILED = "failed", "Ended with an error."
    CANCELLED = "cancelled", "Ended on request; its checkpoints are kept."


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A resource of the service, with an id."""

    id: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def of(cls, answer: Json) -> Self:
        """Build the value from the JSON object `answer`; unknown fields are in `raw` only."""
        known = {
            field.name: answer[field.name] for field in fields(cls) if field.name != "raw" and field.name in answer
        }
        return cls(**known, raw=answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(Value):
    """A dataset; `report` describes its content once it is ready. Times are RFC 3339."""

    name: str = ""
    status: str = "validating"  # validating | ready | failed
    size_bytes: int = 0
    report: Json | None = field(default=None, repr=False)
    error: Json | None = None
    created_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Value):
    """A job of any kind."""

    kind: str = ""
    status: str = JobStatus.QUEUED.value
    name: str | None = None
    dataset: str | None = None
    sweep: str | None = None
    config: Json = field(default_factory=dict, repr=False)
    resolved: Json | None = field(default=None, repr=False)
    progress: Json | None = None
    summary: Json | None = field(default=None, repr=False)
    supervised: Sequence[Json] = field(default=(), repr=False)  # supervised baselines for its accuracy
    error: Json | None = None
    attempt: int = 0
    model_id: str | None = None
    priority: int = 0
    max_runtime: int | None = None
    queue: Json | None = None  # {position, estimated_start} of a queued job, from `jobs.get`
    created_at: str = ""

    @property
    def done(self) -> bool:
        """Whether the job has ended; its status does not change any more."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Value):
    """A saved model: a trained or imported encoder."""

    name: str = ""
    job_id: str = ""
    dim: int = 0
    aliases: Sequence[str] = ()
    sha256: str = ""
    size_bytes: int = 0
    card: Json = field(default_factory=dict, repr=False)
    created_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Value):
    """An index of the embeddings of a dataset; `report` describes it once it is ready."""

    name: str | None = None
    status: str = "building"  # building | ready | failed
    job: str = ""
    dataset: str | None = None
    model: str | None = None
    layer: str = ""
    report: Json | None = None
    error: Json | None = None
    created_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Value):
    """A sweep; `best` is the best trial so far: `{number, params, value, job, model}`."""

    name: str | None = None
    status: str = "running"  # running | paused | succeeded | failed | cancelled
    status_detail: str = ""
    kind: str = ""
    dataset: str | None = None
    space: Json = field(default_factory=dict, repr=False)
    trials: int = 0
    counts: Json = field(default_factory=dict)  # of the trials, by state
    metric: str = ""
    goal: str = "maximize"
    best: Json | None = None
    error: Json | None = None
    created_at: str = ""

    @property
    def done(self) -> bool:
        """Whether the sweep has ended; it goes on when one of its jobs is retried."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Value):
    """An API key; `key` is the secret, which only `keys.create` returns. Times are RFC 3339."""

    name: str = ""
    key: str | None = field(default=None, repr=False)
    scopes: Sequence[str] = ()  # read | embed | train | admin
    created_at: str = ""
    expires_at: str | None = None
    last_used_at: str | None = None
    revoked_at: str | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """The series of one metric: four columns of equal length. `time` is in Unix seconds; `epoch` may be fractional."""

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
    """Series by name, and the cursor `last`: `after=last` asks for newer points."""

    series: Mapping[str, Series]
    last: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def of(cls, answer: Json) -> Self:
        return cls({item["name"]: Series.of(item) for item in answer["series"]}, answer["last"] or 0, answer)


@dataclass(frozen=True, slots=True)
class Update:
    """A job, and its metric points since the previous update."""

    job: Job
    metrics: Metrics

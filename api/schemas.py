"""Schemas: the bodies of requests, which are validated, and of answers, which are documented (and tested to match)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from service import text
from service.db.statuses import DatasetStatus, JobStatus
from ssl_core.config import KINDS, RunConfig

Time = Annotated[str, Field(description="RFC 3339, UTC.", examples=["2026-03-01T12:00:00.000Z"])]
Fault = dict[Literal["pointer", "code", "detail"], str]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Shown(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# --- what is asked ---------------------------------------------------------------------------------------------------


class _ShownAsConfigs:
    """Documents an object as the config of any kind. It is validated where its kind is known, by `ssl_core.config`."""

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter[RunConfig](RunConfig).core_schema)


class NewJob(_Asked):
    """A run to be queued."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "pretrain", "dataset": "ds_01k", "config": {"method": {"name": "simclr"}, "epochs": 100}},
                {"kind": "linear_eval", "dataset": "ds_01k", "model": "job_01k", "config": {"label_fractions": [0.01]}},
            ]
        }
    )

    kind: str = Field("pretrain", max_length=64, description=f"One of {', '.join(KINDS)}.")
    dataset: str = Field(max_length=64, description="The id of a dataset that is ready.")
    config: Annotated[dict[str, Any], _ShownAsConfigs()] = Field(
        default_factory=dict,
        description="What to run, by the job's kind. GET /methods, /backbones and /recipes say what there is.",
    )
    model: str | None = Field(
        None,
        max_length=64,
        description="A `mdl_` id, or the `job_` id that makes the model, finished or not: the new job waits for it.",
    )
    name: str | None = Field(None, max_length=text.MAX_LINE)
    priority: int = Field(0, ge=-1000, le=1000, description="Higher runs first; equals run in the order they came.")
    metadata: dict[str, str] = Field(
        default_factory=dict,
        description="Yours, shown with the job; `licence`, of the data, is told in the model's README.md too.",
    )


class NewKey(_Asked):
    """A key to be made for the owner of the key that asks."""

    name: str = Field(max_length=text.MAX_LINE, description="What it is for.", examples=["laptop"])


# --- what is shown ---------------------------------------------------------------------------------------------------


class Problem(_Shown):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="A sentence for people.")
    code: str = Field(description="For programs; never changes its meaning.", examples=["invalid_config"])
    request_id: str
    errors: list[Fault] = Field(description="Each fault: `pointer` into the body (RFC 6901), `code`, `detail`.")


class Dataset(_Shown):
    """An upload and what became of it."""

    id: str
    object: Literal["dataset"]
    name: str
    status: Literal[tuple(status.value for status in DatasetStatus)] = Field(  # type: ignore[valid-type]
        description=DatasetStatus.describe()
    )
    on_bad_file: Literal["reject", "skip"]
    sha256: str = Field(description="Of the file as it was uploaded.")
    size_bytes: int
    report: dict[str, Any] | None = Field(description="Classes, counts, mean, std, sizes, what was skipped and why.")
    error: dict[str, Any] | None
    created_at: Time
    ready_at: Time | None


class Progress(_Shown):
    """How far a run is."""

    epoch: int
    epochs: int
    step: int
    total_steps: int
    percent: float
    eta_seconds: float
    images_per_second: float


class Transition(_Shown):
    """A change of status."""

    status: str
    at: Time
    detail: str | None


class JobUrls(_Shown):
    self: str
    metrics: str
    events: str
    checkpoints: str
    artifacts: str
    cancel: str


class Supervised(_Shown):
    """A run from labels alone, to hold an accuracy against."""

    job: str
    labels: int | None = Field(description="How many it learned from.")
    top1: float | None = Field(description="From 0 to 1; none where nothing could judge.")
    top1_interval: list[float] | None


class Job(_Shown):
    """A run: what was asked for and how it goes."""

    id: str
    object: Literal["job"]
    kind: str
    status: Literal[tuple(status.value for status in JobStatus)] = Field(  # type: ignore[valid-type]
        description=JobStatus.describe()
    )
    status_detail: str | None
    name: str | None
    dataset: str | None = Field(description="None of an import.")
    model: str | None = Field(description="The model that it starts from or judges, or the job that is to make it.")
    priority: int
    metadata: dict[str, str]
    config: dict[str, Any]
    resolved: dict[str, Any] | None = Field(description="The config with nothing left at `auto`.")
    progress: Progress | None
    summary: dict[str, Any] | None
    supervised: list[Supervised] = Field(
        description="Of linear_eval, knn_eval, finetune and distill: the newest `supervised` runs on the dataset, one"
        " for each number of labels. `GET /jobs/{job_id}` alone shows them."
    )
    error: dict[str, Any] | None
    attempt: int
    model_id: str | None = Field(description="The model that it made.")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    transitions: list[Transition]
    urls: JobUrls


class Event(_Shown):
    """A log line, or a change of status."""

    seq: int
    time: Time
    attempt: int
    level: Literal["info", "warning", "error"]
    code: str
    message: str
    data: dict[str, Any]


class Checkpoint(_Shown):
    """A file from which a run can go on."""

    id: str
    object: Literal["checkpoint"]
    attempt: int
    step: int
    epoch: float
    sha256: str
    size_bytes: int
    metrics: dict[str, float | None]
    created_at: Time


class Artifact(_Shown):
    """A file that a job left to be looked at."""

    object: Literal["artifact"]
    name: str
    media_type: str
    sha256: str
    size_bytes: int
    created_at: Time
    url: str


class Series(_Shown):
    """One metric, column by column; `time` is Unix seconds, a value that was not finite is null."""

    name: str
    step: list[int]
    epoch: list[float]
    time: list[float]
    value: list[float | None]


class Metrics(_Shown):
    """Metrics of a run; ask again with `after` = `last` for what is new."""

    series: list[Series]
    last: int


class Model(_Shown):
    """A trained encoder."""

    id: str
    object: Literal["model"]
    name: str
    job_id: str = Field(description="The job that made it.")
    sha256: str = Field(description="Of the weights (safetensors).")
    size_bytes: int
    dim: int = Field(description="Numbers in a feature vector of the backbone.")
    method: str | None
    backbone: dict[str, Any] | None
    layers: dict[str, int] | None = Field(description="Layers that /embed can give, with their widths.")
    preprocessing: dict[str, Any] | None
    config: dict[str, Any] | None
    metrics: dict[str, Any] | None
    card: dict[str, Any] = Field(description="All that the run wrote down about the model.")
    created_at: Time
    urls: dict[str, str]


class Key(_Shown):
    """A key, without its secret."""

    id: str
    object: Literal["key"]
    name: str
    created_at: Time
    revoked_at: Time | None


class MadeKey(_Shown):
    """A new key: the only time that its secret is shown."""

    id: str
    object: Literal["key"]
    name: str
    key: str = Field(description="The secret, for `Authorization: Bearer`.", examples=["tv_…"])
    created_at: Time


class Method(_Shown):
    """A way to learn."""

    name: str
    description: str
    defaults: dict[str, Any]
    json_schema: dict[str, Any] = Field(alias="schema", description="Of `config.method`.")


class Network(_Shown):
    """A network that can be trained."""

    name: str
    description: str
    defaults: dict[str, Any]
    json_schema: dict[str, Any] = Field(alias="schema", description="Of `config.backbone`.")


class Recipe(_Shown):
    """A complete config with its provenance."""

    name: str
    kind: str
    description: str
    source: str
    hardware: str
    duration: str
    result: str
    config: dict[str, Any]
    evaluation: dict[str, Any] | None = Field(description="The `linear_eval` by which the result was judged, if any.")


class Health(_Shown):
    status: Literal["live", "ready"]


class DatasetList(_Shown):
    object: Literal["list"]
    data: list[Dataset]
    has_more: bool
    next: str | None = Field(description="Send it as `after` for the next page.")


class JobList(_Shown):
    object: Literal["list"]
    data: list[Job]
    has_more: bool
    next: str | None = Field(description="Send it as `after` for the next page.")


class EventList(_Shown):
    object: Literal["list"]
    data: list[Event]
    has_more: bool
    next: int | None = Field(description="Send it as `after` for what comes next.")


class CheckpointList(_Shown):
    object: Literal["list"]
    data: list[Checkpoint]
    has_more: bool
    next: str | None


class ArtifactList(_Shown):
    object: Literal["list"]
    data: list[Artifact]
    has_more: bool
    next: str | None


class ModelList(_Shown):
    object: Literal["list"]
    data: list[Model]
    has_more: bool
    next: str | None = Field(description="Send it as `after` for the next page.")


class KeyList(_Shown):
    object: Literal["list"]
    data: list[Key]
    has_more: bool
    next: str | None


class MethodList(_Shown):
    object: Literal["list"]
    data: list[Method]
    has_more: bool
    next: str | None


class BackboneList(_Shown):
    object: Literal["list"]
    data: list[Network]
    has_more: bool
    next: str | None


class RecipeList(_Shown):
    object: Literal["list"]
    data: list[Recipe]
    has_more: bool
    next: str | None

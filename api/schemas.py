"""Schemas of request bodies, which are validated, and of response bodies, which are documented."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api.parameters.instants import Instant
from api.parameters.patterns import FIELD_POINTER, LINE, PRINTABLE
from service import text
from service.audit import Action
from service.db.kinds import JUDGED_KINDS
from service.db.statuses import DatasetStatus, IndexStatus, JobStatus, SweepStatus
from service.keys import SCOPES, Scope
from service.keys.grants import MAX_EXPIRY_DAYS
from service.sweeps.pruners import Pruner
from service.sweeps.registry import MAX_PARALLEL, STATES, Goal
from service.sweeps.space import MAX_FIELDS, MAX_TRIALS, Search, Space
from ssl_core.config import KINDS, RunConfig, metric_names

Time = Annotated[str, Field(description="RFC 3339, UTC.", examples=["2026-03-01T12:00:00.000Z"])]
DEFAULT_KIND = "pretrain"
Name = Annotated[str, Field(max_length=text.MAX_LINE, json_schema_extra={"pattern": LINE})]
Metadata = Annotated[
    dict[str, str],
    Field(
        json_schema_extra={
            "maxProperties": text.MAX_METADATA,
            "propertyNames": {"maxLength": text.MAX_METADATA_KEY, "pattern": PRINTABLE},
            "additionalProperties": {"type": "string", "maxLength": text.MAX_METADATA_VALUE, "pattern": PRINTABLE},
        }
    ),
]
MaxRuntime = Annotated[int, Field(ge=1, le=10**8)]
ProblemError = dict[Literal["pointer", "code", "detail"], str]


class _RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _ResponseBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# --- requests --------------------------------------------------------------------------------------------------------


class _AnyConfig:
    """Documents an object as the union of all configs; `ssl_core.config` validates it by the kind of the job."""

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter[RunConfig](RunConfig).core_schema)


class NewJob(_RequestBody):
    """A job to submit."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "pretrain", "dataset": "ds_01k", "config": {"method": {"name": "simclr"}, "epochs": 100}},
                {"kind": "linear_eval", "dataset": "ds_01k", "model": "job_01k", "config": {"label_fractions": [0.01]}},
            ],
        }
    )

    kind: str = Field(
        DEFAULT_KIND,
        max_length=64,
        description=f"One of {', '.join(KINDS)}.",
        json_schema_extra={"enum": list(KINDS)},
    )
    dataset: str = Field(max_length=64, description="The id of a dataset that is ready.")
    config: Annotated[dict[str, Any], _AnyConfig()] = Field(
        default_factory=dict,
        description="The config of the job's kind. GET /methods, /backbones and /recipes list the options.",
    )
    model: str | None = Field(
        None,
        max_length=64,
        description="A `mdl_` id, an alias, or the `job_` id of the job that makes the model, for which the job waits.",
    )
    name: Name | None = None
    priority: int = Field(
        0,
        ge=-1000,
        le=1000,
        description="Among the owner's jobs, higher priorities run first; equal ones in order of submission.",
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="Free text by key; `licence`, that of the data, is copied to the model's README.md.",
    )
    max_runtime: MaxRuntime | None = Field(
        None, description="Seconds for which the job may run in all; then it fails, with a last checkpoint."
    )


class JobChanges(_RequestBody):
    """Fields of a job to change; others stay as they are."""

    name: Name | None = None
    priority: int = Field(0, ge=-1000, le=1000, description="Only before the job is run.")
    metadata: Metadata = Field(default_factory=dict, description="Replaces the whole.")


class Retry(_RequestBody):
    """Where a job that has failed or was cancelled goes on."""

    start: Literal["checkpoint", "start"] = Field(
        "checkpoint",
        description="checkpoint: from its last one, if there is any; start: from the start, and its checkpoints,"
        " metrics and artifacts are deleted.",
    )


class Clone(_RequestBody):
    """What a new job has in place of another's; all else is the same."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"config": {"seed": 1, "method": {"temperature": 0.1}}}]})

    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Changes, merged as in RFC 7396: null sets a field to its default. A section whose `name` changes"
        " is replaced as a whole.",
    )
    dataset: str = Field("", max_length=64)
    model: str | None = Field(None, max_length=64, description="Null: none.")
    name: Name | None = None
    priority: int = Field(0, ge=-1000, le=1000)
    metadata: Metadata = Field(default_factory=dict)
    max_runtime: MaxRuntime | None = Field(None, description="Null: no maximum.")


class AliasTarget(_RequestBody):
    """The model that an alias is to name."""

    model: str = Field(
        max_length=64,
        description="A `mdl_` id, another alias, or the `job_` id of the run that made it.",
        examples=["mdl_01k"],
    )


class NewIndex(_RequestBody):
    """An index to build."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"job": "job_01k", "name": "photos"}]})

    job: str = Field(max_length=64, description="The `embed_dataset` job whose embeddings are indexed.")
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)


class NewSweep(_RequestBody):
    """A sweep to start: jobs that differ in some fields of their config."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset": "ds_01k",
                    "config": {"method": {"name": "simclr"}, "optimizer": {"name": "sgd"}, "epochs": 30},
                    "space": {
                        "/method/temperature": {"values": [0.1, 0.2, 0.5]},
                        "/optimizer/lr": {"low": 0.01, "high": 1.0, "log": True},
                    },
                    "search": "random",
                    "trials": 20,
                    "parallel": 4,
                    "metric": "online/knn",
                    "pruner": {"name": "median", "warmup_epochs": 5},
                }
            ],
        }
    )

    kind: str = Field(DEFAULT_KIND, max_length=64, description="Of the jobs.", json_schema_extra={"enum": list(KINDS)})
    dataset: str = Field(max_length=64, description="The id of a dataset that is ready.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="What the configs of all trials have in common, as in POST /jobs."
    )
    space: Space = Field(
        min_length=1,
        max_length=MAX_FIELDS,
        description="The fields that differ: the `values` or the range of each, by its JSON pointer into the config.",
        json_schema_extra={"propertyNames": {"maxLength": 200, "pattern": FIELD_POINTER}},
    )
    search: Search = Field("grid", description="grid: every combination; random: `trials` draws.")
    trials: int | None = Field(None, ge=1, le=MAX_TRIALS, description="Of a random search.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the draws; the same seed draws the same trials.")
    parallel: int = Field(2, ge=1, le=MAX_PARALLEL, description="How many jobs are queued or running at once at most.")
    metric: str | None = Field(
        None,
        max_length=100,
        description="The metric whose last value decides which trial is the best. Null: the accuracy of the kind, of"
        " pretrain `online/knn`.",
        json_schema_extra={"enum": [None, *metric_names.list_known()]},
    )
    goal: Goal | None = Field(None, description="Default: minimize a metric of loss, maximize others.")
    pruner: Pruner | None = Field(None, description="Stops trials early that do worse than others. Null: none.")
    model: str | None = Field(None, max_length=64, description="The input model of all trials, as in POST /jobs.")
    name: Name | None = None
    priority: int = Field(0, ge=-1000, le=1000, description="Of the jobs.")
    metadata: Metadata = Field(default_factory=dict, description="Of the sweep and of its jobs.")
    max_runtime: MaxRuntime | None = Field(None, description="Of each job, in seconds.")


class NewKey(_RequestBody):
    """A key to create for the owner of the request's key."""

    name: Name = Field(description="The use of the key.", examples=["laptop"])
    scopes: list[Scope] | None = Field(
        None, min_length=1, max_length=len(SCOPES), description="Default: those of the request's key."
    )
    expires_in_days: int | None = Field(
        None,
        ge=1,
        le=MAX_EXPIRY_DAYS,
        description="Default: with the request's key, or never.",
    )
    expires_at: Instant | None = Field(
        None, description="RFC 3339; with `expires_in_days`, the sooner of both applies."
    )


class NewSession(_RequestBody):
    """A session to open with a token of `POST /sessions/tokens`."""

    token: str = Field(max_length=64, json_schema_extra={"pattern": PRINTABLE}, examples=["tvs_…"])


# --- responses -------------------------------------------------------------------------------------------------------


class Problem(_ResponseBody):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="A sentence that describes the error.")
    code: str = Field(description="A stable code for programs.", examples=["invalid_config"])
    request_id: str
    errors: list[ProblemError] = Field(
        description="For each fault: `pointer` into the body (RFC 6901), `code`, `detail`."
    )


class Dataset(_ResponseBody):
    """An uploaded dataset."""

    id: str
    object: Literal["dataset"]
    name: str
    status: Literal[tuple(status.value for status in DatasetStatus)] = Field(  # type: ignore[valid-type]
        description=DatasetStatus.describe()
    )
    on_bad_file: Literal["reject", "skip"]
    reading: dict[str, Any] = Field(description="Other options of the upload that were given.")
    sha256: str = Field(description="Of the uploaded file.")
    size_bytes: int
    report: dict[str, Any] | None = Field(
        description="Classes, counts, mean, std, sizes, skipped files with the reasons, and `warnings`: a list of"
        " `{code, detail, count, examples}`."
    )
    error: dict[str, Any] | None
    created_at: Time
    ready_at: Time | None


class Image(_ResponseBody):
    """An image of a dataset."""

    object: Literal["image"]
    row: int = Field(description="Its number in the dataset, from 0; rows are sorted by split, class and name.")
    split: Literal["train", "val", "test"]
    label: str | None = Field(description="The name of its class; null without one.")
    width: int = Field(description="In pixels, upright.")
    height: int
    name: str = Field(description="Its path in the upload.")
    url: str = Field(description="Of its thumbnail.")


class Progress(_ResponseBody):
    """The progress of a run."""

    epoch: int
    epochs: int
    step: int
    total_steps: int
    percent: float
    eta_seconds: float
    images_per_second: float


class Transition(_ResponseBody):
    """A status change."""

    status: str
    at: Time
    detail: str | None


class JobUrls(_ResponseBody):
    self: str
    metrics: str
    events: str
    checkpoints: str
    artifacts: str
    cancel: str
    pause: str
    resume: str
    retry: str
    clone: str


class QueuePlace(_ResponseBody):
    """The place of a queued job among those that wait for a worker."""

    position: int = Field(description="From 1; it may grow when an owner with fewer running jobs submits some.")
    estimated_start: Time | None = Field(
        description="Assumes that jobs take as long as recent ones of their kind; null when that is not known, or when"
        " there is no worker."
    )


class SupervisedBaseline(_ResponseBody):
    """A `supervised` run, as a baseline for an accuracy."""

    job: str
    labels: int | None = Field(description="The number of training labels.")
    top1: float | None = Field(description="From 0 to 1; null without held-out labels.")
    top1_interval: list[float] | None


class Job(_ResponseBody):
    """A job: its config, status and results."""

    id: str
    object: Literal["job"]
    kind: str
    status: Literal[tuple(status.value for status in JobStatus)] = Field(  # type: ignore[valid-type]
        description=JobStatus.describe()
    )
    status_detail: str | None
    name: str | None
    dataset: str | None = Field(description="Null for an import.")
    model: str | None = Field(description="The input model, or the job that makes it.")
    sweep: str | None = Field(description="The sweep that it is a trial of.")
    priority: int
    metadata: dict[str, str]
    config: dict[str, Any]
    resolved: dict[str, Any] | None = Field(description="The config with every `auto` resolved.")
    max_runtime: int | None = Field(description="Seconds for which the job may run in all.")
    queue: QueuePlace | None = Field(description="Of a queued job. Only in `GET /jobs/{job_id}`.")
    progress: Progress | None
    summary: dict[str, Any] | None
    supervised: list[SupervisedBaseline] = Field(
        description="For linear_eval, knn_eval, finetune and distill: the newest `supervised` run on the dataset for"
        " each number of labels. Only in `GET /jobs/{job_id}`."
    )
    error: dict[str, Any] | None
    attempt: int
    model_id: str | None = Field(description="The model that the job made.")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    transitions: list[Transition]
    urls: JobUrls


class Event(_ResponseBody):
    """A log message or a status change."""

    seq: int
    time: Time
    attempt: int
    level: Literal["info", "warning", "error"]
    code: str
    message: str
    data: dict[str, Any]


class Checkpoint(_ResponseBody):
    """A checkpoint from which a run can resume."""

    id: str
    object: Literal["checkpoint"]
    attempt: int
    step: int
    epoch: float
    sha256: str
    size_bytes: int
    metrics: dict[str, float | None]
    created_at: Time


class Artifact(_ResponseBody):
    """A file that a job left, such as a figure."""

    object: Literal["artifact"]
    name: str
    media_type: str
    sha256: str
    size_bytes: int
    created_at: Time
    url: str


class Series(_ResponseBody):
    """One metric in columns; `time` is in Unix seconds, a non-finite value is null."""

    name: str
    step: list[int]
    epoch: list[float]
    time: list[float]
    value: list[float | None]


class Metrics(_ResponseBody):
    """Metrics of a run; a request with `after` = `last` returns new points."""

    series: list[Series]
    last: int


class ComparedJob(_ResponseBody):
    """A job of a comparison."""

    id: str
    name: str | None
    kind: str
    method: str | None = Field(description="Of its config, or of its input model.")
    dataset: str | None
    model: str | None = Field(description="The input model, or the job that makes it.")
    status: Literal[tuple(status.value for status in JobStatus)]  # type: ignore[valid-type]
    summary: dict[str, Any] | None
    series: list[Series]


class Difference(_ResponseBody):
    """A field that differs."""

    pointer: str = Field(description="A JSON pointer into the resolved configs.", examples=["/method/temperature"])
    values: dict[str, Any] = Field(description="By the id of the job; a job without the field is left out.")


class Comparison(_ResponseBody):
    """Jobs side by side."""

    object: Literal["comparison"]
    jobs: list[ComparedJob]
    differences: list[Difference]


class LeaderboardEntry(_ResponseBody):
    """A model of a leaderboard."""

    rank: int = Field(description="From 1; equal accuracies have equal ranks.")
    top1: float = Field(description="From 0 to 1.")
    top1_interval: list[float] | None
    model: str
    name: str = Field(description="Of the model.")
    method: str | None
    backbone: str | None
    epochs: float | None = Field(description="For which the model was trained.")
    job: str = Field(description="The job that judged it.")
    finished_at: Time | None


class Leaderboard(_ResponseBody):
    """Models that can be compared, the best first."""

    object: Literal["leaderboard"]
    dataset: str
    protocol: Literal[JUDGED_KINDS]  # type: ignore[valid-type]
    description: str = Field(description="The protocol in words, which all of the group have in common.")
    labels: float | None = Field(description="Number of labels that were used; null: all that there are.")
    entries: list[LeaderboardEntry]


class Model(_ResponseBody):
    """A saved model: a trained encoder."""

    id: str
    object: Literal["model"]
    name: str
    job_id: str = Field(description="The job that made the model.")
    sha256: str = Field(description="Of the weights (safetensors).")
    size_bytes: int
    dim: int = Field(description="Size of the backbone's feature vectors.")
    aliases: list[str] = Field(description="Names of it, sorted; PUT /aliases/{alias} gives and moves them.")
    method: str | None
    backbone: dict[str, Any] | None
    layers: dict[str, int] | None = Field(description="Layers for /embed, with their widths.")
    preprocessing: dict[str, Any] | None
    config: dict[str, Any] | None
    metrics: dict[str, Any] | None
    card: dict[str, Any] = Field(description="The complete model card.")
    created_at: Time
    urls: dict[str, str]


class Alias(_ResponseBody):
    """A name of a model, which may be moved to another."""

    object: Literal["alias"]
    name: str
    model: str = Field(description="The id of the model.")
    created_at: Time
    moved_at: Time = Field(description="When it was given to this model.")


class Embedding(_ResponseBody):
    """The features of one image of a request."""

    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of little-endian float32.")


class Embeddings(_ResponseBody):
    """Features of images, in the order of the request."""

    object: Literal["list"]
    model: str
    dim: int = Field(description="Size of each vector.")
    data: list[Embedding]


class Trial(_ResponseBody):
    """A trial of a sweep."""

    object: Literal["trial"]
    number: int = Field(description="From 0, in the order in which trials are started.")
    state: Literal[STATES] = Field(  # type: ignore[valid-type]
        description="planned: not started yet; running: its job has not ended; pruned: it was stopped early."
    )
    params: dict[str, Any] = Field(description="The values that it takes, by JSON pointer into the config.")
    value: float | None = Field(description="The last one of the metric, once its job has ended.")
    job: str | None
    model: str | None = Field(description="The model that the job made.")
    error: dict[str, Any] | None = Field(description="Why no job could be submitted; other errors are of the job.")


class SweepCounts(_ResponseBody):
    """How many trials are in each state."""

    planned: int
    running: int
    succeeded: int
    failed: int
    pruned: int
    cancelled: int


class SweepUrls(_ResponseBody):
    self: str
    trials: str
    pause: str
    resume: str
    cancel: str


class Sweep(_ResponseBody):
    """A sweep and how far it is."""

    id: str
    object: Literal["sweep"]
    name: str | None
    status: Literal[tuple(status.value for status in SweepStatus)] = Field(  # type: ignore[valid-type]
        description=SweepStatus.describe()
    )
    status_detail: str
    kind: str
    dataset: str
    model: str | None = Field(description="The input model, or the job that makes it.")
    config: dict[str, Any]
    space: dict[str, Any]
    search: Search
    trials: int = Field(description="The number of trials.")
    seed: int
    parallel: int
    metric: str
    goal: Goal
    pruner: dict[str, Any] | None
    priority: int
    metadata: dict[str, str]
    max_runtime: int | None
    counts: SweepCounts
    best: Trial | None = Field(description="Of the trials that have succeeded so far.")
    error: dict[str, Any] | None
    created_at: Time
    finished_at: Time | None
    urls: SweepUrls


class Neighbours(_ResponseBody):
    """The nearest others of each image, from which duplicates and outliers follow."""

    k: int
    recall_at_10: float


class IndexReport(_ResponseBody):
    """What an index has."""

    vectors: int
    dim: int
    labelled: int
    method: Literal["exact", "inverted_lists"] = Field(description="How it is searched.")
    recall_at_10: float = Field(description="Of the 10 nearest, those that are found, measured; 1 of an exact index.")
    neighbours: Neighbours
    seconds: float = Field(description="For which it was built.")
    bytes: int


class IndexUrls(_ResponseBody):
    self: str
    search: str
    duplicates: str
    outliers: str
    select: str
    labels: str


class Index(_ResponseBody):
    """An index of the embeddings of a dataset."""

    id: str
    object: Literal["index"]
    name: str | None
    status: Literal[tuple(status.value for status in IndexStatus)] = Field(  # type: ignore[valid-type]
        description=IndexStatus.describe()
    )
    job: str = Field(description="The job that computed the embeddings.")
    dataset: str | None
    model: str | None
    layer: str
    metadata: dict[str, str]
    report: IndexReport | None
    error: dict[str, Any] | None
    created_at: Time
    ready_at: Time | None
    urls: IndexUrls


class ImageUrls(_ResponseBody):
    thumbnail: str | None


class IndexedImage(_ResponseBody):
    """An image of an index."""

    row: int = Field(description="Its number in the dataset.")
    label: str | None
    split: Literal["train", "val", "test"]
    path: str = Field(description="Its path in the upload.")
    urls: ImageUrls


class FoundImage(IndexedImage):
    similarity: float = Field(description="Cosine similarity, -1 to 1.")


class FarImage(IndexedImage):
    distance: float = Field(description="Mean of 1 - cosine similarity to the nearest others.")


class SelectedImage(IndexedImage):
    radius: float = Field(description="The greatest distance of an image from the nearest of those selected so far.")


class LabelledImage(IndexedImage):
    predicted: str | None = Field(description="Null where no image has a label.")
    confidence: float = Field(description="The label's share of the votes, 0 to 1.")


class Pair(_ResponseBody):
    """Two images that are nearly the same."""

    similarity: float
    images: list[IndexedImage]


class Found(_ResponseBody):
    object: Literal["list"]
    index: str
    data: list[FoundImage]


class Pairs(_ResponseBody):
    object: Literal["list"]
    index: str
    data: list[Pair]
    total: int = Field(description="The number of pairs, of which the most similar are listed.")


class FarImages(_ResponseBody):
    object: Literal["list"]
    index: str
    data: list[FarImage]


class Selected(_ResponseBody):
    object: Literal["list"]
    index: str
    data: list[SelectedImage]
    candidates: int = Field(description="The number of images that were selected from.")
    covered: int = Field(description="The number of labelled images that count as selected before.")


class LabelledImages(_ResponseBody):
    object: Literal["list"]
    index: str
    data: list[LabelledImage]
    has_more: bool
    next: int | None = Field(description="The `after` of the next page.")


class Key(_ResponseBody):
    """A key, without its secret."""

    id: str
    object: Literal["key"]
    name: str
    role: Literal["owner", "operator"] = Field(description="An operator's key also reads the metrics of all owners.")
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None = Field(description="To within a minute.")
    revoked_at: Time | None


class AuditEntry(_ResponseBody):
    """What was done with a key, and when."""

    id: str
    object: Literal["audit_entry"]
    at: Time
    action: Action
    target: str = Field(description="The id of what was made, cancelled, deleted, downloaded, revoked or refused.")
    key: str | None = Field(description="The id of the key; null for a command on the server.")
    key_name: str | None
    address: str | None = Field(description="The client's address.")
    request_id: str | None
    detail: dict[str, Any]


class MadeKey(_ResponseBody):
    """A new key with its secret, which is not returned again."""

    id: str
    object: Literal["key"]
    name: str
    role: Literal["owner", "operator"] = Field(description="An operator's key also reads the metrics of all owners.")
    key: str = Field(description="The secret, for `Authorization: Bearer`.", examples=["tv_…"])
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None


class SignInToken(_ResponseBody):
    """A one-time token that signs a browser in."""

    object: Literal["sign_in_token"]
    token: str = Field(description="For the page: its address is `/#token=` and this.", examples=["tvs_…"])
    expires_at: Time


class Amount(_ResponseBody):
    """What is used, and the quota."""

    used: int
    allowed: int | None = Field(description="Null without a limit.")


class JobAmounts(_ResponseBody):
    queued: Amount
    running: Amount


class StoredBytes(_ResponseBody):
    uploads: int = Field(description="Received files that wait for a worker.")
    datasets: int
    models: int
    checkpoints: int
    artifacts: int
    indexes: int


class ByteAmount(Amount):
    of: StoredBytes


class Usage(_ResponseBody):
    """What an owner uses, and what it may use."""

    object: Literal["usage"]
    jobs: JobAmounts = Field(description="Training and evaluation.")
    uploads: JobAmounts = Field(description="Ingestions, imports and indexes.")
    bytes: ByteAmount
    requests_per_minute: Amount = Field(description="Of the API process that responds, with this request.")


class Method(_ResponseBody):
    """A self-supervised method."""

    name: str
    description: str
    defaults: dict[str, Any]
    json_schema: dict[str, Any] = Field(alias="schema", description="Of `config.method`.")


class Network(_ResponseBody):
    """A backbone."""

    name: str
    description: str
    defaults: dict[str, Any]
    json_schema: dict[str, Any] = Field(alias="schema", description="Of `config.backbone`.")


class Recipe(_ResponseBody):
    """A complete config with its source and expected result."""

    name: str
    kind: str
    description: str
    source: str
    hardware: str
    duration: str
    result: str
    config: dict[str, Any]
    evaluation: dict[str, Any] | None = Field(
        description="The config of the `linear_eval` that gave the result, if any."
    )


class Health(_ResponseBody):
    status: Literal["live", "ready"]


class DatasetList(_ResponseBody):
    object: Literal["list"]
    data: list[Dataset]
    has_more: bool
    next: str | None = Field(description="The `after` of the next page.")


class ImageList(_ResponseBody):
    object: Literal["list"]
    data: list[Image]
    has_more: bool
    next: int | None = Field(description="The `after` of the next page.")


class JobList(_ResponseBody):
    object: Literal["list"]
    data: list[Job]
    has_more: bool
    next: str | None = Field(description="The `after` of the next page.")


class EventList(_ResponseBody):
    object: Literal["list"]
    data: list[Event]
    has_more: bool
    next: int | None = Field(description="The `after` of the next page.")


class CheckpointList(_ResponseBody):
    object: Literal["list"]
    data: list[Checkpoint]
    has_more: bool
    next: str | None


class ArtifactList(_ResponseBody):
    object: Literal["list"]
    data: list[Artifact]
    has_more: bool
    next: str | None


class ModelList(_ResponseBody):
    object: Literal["list"]
    data: list[Model]
    has_more: bool
    next: str | None = Field(description="The `after` of the next page.")


class LeaderboardList(_ResponseBody):
    object: Literal["list"]
    data: list[Leaderboard]
    has_more: bool
    next: str | None


class AliasList(_ResponseBody):
    object: Literal["list"]
    data: list[Alias]
    has_more: bool
    next: str | None = Field(description="The `after` of the next page.")


class IndexList(_ResponseBody):
    object: Literal["list"]
    data: list[Index]
    has_more: bool
    next: str | None = Field(description="The `after` of the next page.")


class SweepList(_ResponseBody):
    object: Literal["list"]
    data: list[Sweep]
    has_more: bool
    next: str | None = Field(description="The `after` of the next page.")


class TrialList(_ResponseBody):
    object: Literal["list"]
    data: list[Trial]
    has_more: bool
    next: int | None = Field(description="The `after` of the next page.")


class KeyList(_ResponseBody):
    object: Literal["list"]
    data: list[Key]
    has_more: bool
    next: str | None


class AuditList(_ResponseBody):
    object: Literal["list"]
    data: list[AuditEntry]
    has_more: bool
    next: str | None = Field(description="The `after` of the next page.")


class MethodList(_ResponseBody):
    object: Literal["list"]
    data: list[Method]
    has_more: bool
    next: str | None


class BackboneList(_ResponseBody):
    object: Literal["list"]
    data: list[Network]
    has_more: bool
    next: str | None


class RecipeList(_ResponseBody):
    object: Literal["list"]
    data: list[Recipe]
    has_more: bool
    next: str | None

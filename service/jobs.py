"""Jobs, as people see them: asking for one, looking at it, stopping it. `service.leases` is the runner's side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, select
from sqlalchemy.orm import Session

from service import datasets, ids, lifecycle, models, text
from service.db.models import Artifact, Checkpoint, Dataset, Job, JobEvent
from service.db.session import clock
from service.errors import (
    ArtifactNotFound,
    BatchTooLarge,
    DatasetFailed,
    DatasetNotReady,
    Fault,
    InvalidConfig,
    JobNotFound,
    LabelsNeeded,
    ModelNeeded,
    UnknownKind,
)
from service.page import Page, newest_first
from ssl_core.config import KINDS, Distill, Export, Finetune, Pretrain, Project, RunConfig, Supervised, TrainingRun

MIN_PRIORITY, MAX_PRIORITY = -1000, 1000


def submit(
    session: Session,
    tenant_id: str,
    kind: str,
    dataset_id: str,
    config: RunConfig,
    *,
    model: str | None = None,
    name: str | None = None,
    priority: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> Job:
    """Return a new job, `queued`, or `waiting` when `model` names a job that has not made its model yet.

    Whatever can be told at the door is: raises UnknownKind, DatasetNotFound, DatasetNotReady, DatasetFailed,
    LabelsNeeded, BatchTooLarge, InvalidConfig, ModelNeeded, ModelNotFound, ModelNotReady, ParentFailed, InvalidRequest.
    """
    if kind not in KINDS or kind != config.kind:
        raise UnknownKind(f"There is no kind `{kind[:40]}`; there are {', '.join(KINDS)}.")
    dataset = _ready(session, tenant_id, dataset_id)
    _check_against(dataset, config)
    if model is None and not isinstance(config, Pretrain | Supervised):
        detail = f"Name the model that {kind} works on."
        raise ModelNeeded(errors=[Fault(pointer="/model", code="model_needed", detail=detail)])
    source = models.source(session, tenant_id, model) if model is not None else models.Source(None, None)
    if source.model_id is not None:
        _check_with_model(models.card(session, source.model_id), config)
    job = Job(
        id=ids.new("job"),
        tenant_id=tenant_id,
        kind=kind,
        queue="train",
        name=text.line(name, "/name") if name is not None else None,
        dataset_id=dataset.id,
        model_id=source.model_id,
        parent_id=source.parent_id,
        config=config.model_dump(mode="json"),
        user_metadata=text.metadata(metadata or {}),
        priority=_priority(priority),
        status="queued" if model is None or source.model_id is not None else "waiting",
        created_at=clock(session),
    )
    waits_for = "a worker" if job.status == "queued" else f"{job.parent_id} to make the model"
    lifecycle.begin(session, job, f"Waits for {waits_for}.")
    return job


def get(session: Session, tenant_id: str, job_id: str) -> Job:
    """Return the tenant's job. Raises JobNotFound."""
    if not ids.plausible(job_id):
        raise JobNotFound
    job = session.scalars(_ONE, {"tenant_id": tenant_id, "job_id": job_id}).one_or_none()
    if job is None:
        raise JobNotFound
    return job


def standing(session: Session, tenant_id: str, job_id: str) -> tuple[int, str]:
    """Return the number of the job's last point, and its status: all that a poll needs. Raises JobNotFound."""
    if not ids.plausible(job_id):
        raise JobNotFound
    row = session.execute(_STANDING, {"tenant_id": tenant_id, "job_id": job_id}).one_or_none()
    if row is None:
        raise JobNotFound
    return row[0], row[1]


def list_(
    session: Session,
    tenant_id: str,
    after: str | None = None,
    limit: int = 20,
    *,
    status: str | None = None,
    kind: str | None = None,
    dataset: str | None = None,
) -> Page[Job]:
    """Return the tenant's jobs, newest first."""
    if not all(text.printable(value) for value in (status, kind, dataset) if value is not None):
        return Page([], False, None)
    filters = {Job.status: status, Job.kind: kind, Job.dataset_id: dataset}
    wanted = [column == value for column, value in filters.items() if value is not None]
    return newest_first(session, select(Job).where(_mine(tenant_id), *wanted), Job.id, after, limit)


def cancel(session: Session, tenant_id: str, job_id: str) -> Job:
    """Stop the job; asking again, or for one that has ended, changes nothing. Raises JobNotFound."""
    get(session, tenant_id, job_id)
    mine = select(Job).where(_mine(tenant_id), Job.id == job_id).with_for_update(key_share=True)
    job = session.scalars(mine.execution_options(populate_existing=True)).one()
    lifecycle.cancel(session, job)
    return job


@dataclass(frozen=True, slots=True)
class Events:
    """Events in ascending `seq`; `last` is what to send as `after` for what comes next."""

    items: Sequence[JobEvent]
    has_more: bool
    last: int


def events(session: Session, job_id: str, after: int = 0, limit: int = 100) -> Events:
    """Return what happened to the job after event `after`. The caller has asked `get` whose job it is."""
    after = min(after, 2**31 - 1)  # what the column can hold
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    rows = session.scalars(query.order_by(JobEvent.seq).limit(limit + 1)).all()
    items = rows[:limit]
    return Events(items, len(rows) > limit, items[-1].seq if items else after)


def transitions(session: Session, job_id: str) -> Sequence[JobEvent]:
    """Return the job's changes of status, oldest first; `data["status"]` is the status that each led to."""
    return session.scalars(_TRANSITIONS, {"job_id": job_id}).all()


def histories(session: Session, job_ids: Sequence[str]) -> dict[str, list[JobEvent]]:
    """Return the `transitions` of many jobs, by job id."""
    query = select(JobEvent).where(JobEvent.job_id.in_(job_ids), JobEvent.code == "status")
    found: dict[str, list[JobEvent]] = {job_id: [] for job_id in job_ids}
    for change in session.scalars(query.order_by(JobEvent.job_id, JobEvent.seq)):
        found[change.job_id].append(change)
    return found


def checkpoints(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """Return the job's checkpoints that are kept, the furthest first."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return session.scalars(query.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())).all()


def artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    """Return the job's artifacts by name."""
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()


def artifact(session: Session, job_id: str, name: str) -> Artifact:
    """Return the job's artifact of that name. Raises ArtifactNotFound."""
    if not text.printable(name):
        raise ArtifactNotFound
    found = session.scalars(select(Artifact).where(Artifact.job_id == job_id, Artifact.name == name)).one_or_none()
    if found is None:
        raise ArtifactNotFound
    return found


def _mine(tenant_id: str | BindParameter[str]) -> ColumnElement[bool]:
    return and_(Job.tenant_id == tenant_id, Job.kind != "ingest")


# What every poll asks, built once: building a statement takes longer than running it.
_ONE = select(Job).where(_mine(bindparam("tenant_id")), Job.id == bindparam("job_id"))
_STANDING = _ONE.with_only_columns(Job.last_point, Job.status)
_TRANSITIONS = (
    select(JobEvent).where(JobEvent.job_id == bindparam("job_id"), JobEvent.code == "status").order_by(JobEvent.seq)
)


def _ready(session: Session, tenant_id: str, dataset_id: str) -> Dataset:
    """Return the dataset, held against deletion until we commit, when a job can use it."""
    dataset = datasets.get(session, tenant_id, dataset_id, held=True)
    if dataset.status == "validating":
        raise DatasetNotReady
    if dataset.status == "failed":
        raise DatasetFailed
    return dataset


def _check_against(dataset: Dataset, config: RunConfig) -> None:
    """Raise when the config asks for more than the dataset has."""
    if isinstance(config, Export):
        return None  # it takes what images there are
    if isinstance(config, Project):
        return _check_split(dataset, config)
    train = _train_split(dataset)
    images = int(train.get("images", 0))
    if config.subset is not None and config.subset > images:
        detail = f"subset is {config.subset}, but the training split has {images} images."
        raise InvalidConfig(detail, errors=[Fault(pointer="/config/subset", code="subset_too_large", detail=detail)])
    if isinstance(config, Pretrain):
        there = config.subset or images
        if config.batch_size > there:
            detail = f"batch_size is {config.batch_size}, but there are {there} training images."
            raise BatchTooLarge(detail, errors=[Fault(pointer="/config/batch_size", code="too_large", detail=detail)])
    elif _needs_labels(config) and sum(count > 0 for count in train.get("per_class", [])) < 2:
        detail = f"A job of the kind {config.kind} needs labelled training images of at least two classes."
        raise LabelsNeeded(detail, errors=[Fault(pointer="/dataset", code="labels_needed", detail=detail)])
    return None


def _check_split(dataset: Dataset, config: Project) -> None:
    """Raise when the split that is to be drawn has no images."""
    splits = (dataset.report or {}).get("splits", {})
    if config.split != "auto" and not splits.get(config.split, {}).get("images"):
        detail = f"The dataset has no images in its {config.split} split."
        raise InvalidConfig(detail, errors=[Fault(pointer="/config/split", code="split_empty", detail=detail)])


def _needs_labels(config: RunConfig) -> bool:
    return not isinstance(config, Distill) or config.label_weight > 0


def _check_with_model(card: Mapping[str, Any], config: RunConfig) -> None:
    """Raise when the config asks for what the model lacks, or would train it as another network."""
    if not isinstance(config, TrainingRun):
        return _check_layer(card, config.layer)
    if isinstance(config, Distill):
        return _check_teacher(card)
    if isinstance(config, Finetune):
        _check_head(card, config.ft_proj_selector)
    return _check_network(card, config)


def _check_layer(card: Mapping[str, Any], layer: str) -> None:
    layers = card.get("layers", {layer: 0})
    if layer not in layers:
        detail = f"The model has no layer {layer}; it has {', '.join(sorted(layers))}."
        raise InvalidConfig(detail, errors=[Fault(pointer="/config/layer", code="layer_not_found", detail=detail)])


def _check_teacher(card: Mapping[str, Any]) -> None:
    if not card.get("classifier"):
        detail = "The model has no classifier to teach with; name one that finetune or supervised made."
        raise InvalidConfig(detail, errors=[Fault(pointer="/model", code="no_classifier", detail=detail)])


def _check_head(card: Mapping[str, Any], selector: int) -> None:
    layers = len((card["projector"] or {"widths": [0]})["widths"]) - 1 if "projector" in card else selector
    if selector > layers:
        detail = f"ft_proj_selector is {selector}; the model's head has {layers} layers."
        fault = Fault(pointer="/config/ft_proj_selector", code="layer_not_found", detail=detail)
        raise InvalidConfig(detail, errors=[fault])


def _check_network(card: Mapping[str, Any], config: TrainingRun) -> None:
    for name, theirs in card.get("backbone", {}).items():
        ours = getattr(config.backbone, name, "auto")
        if ours not in ("auto", theirs):
            detail = f"The model's backbone has {name} {theirs}, not {ours}."
            fault = Fault(pointer=f"/config/backbone/{name}", code="another_network", detail=detail)
            raise InvalidConfig(detail, errors=[fault])


def _train_split(dataset: Dataset) -> dict[str, Any]:
    report: dict[str, Any] = dataset.report or {}
    split: dict[str, Any] = report.get("splits", {}).get("train", {})
    return split


def _priority(priority: int) -> int:
    if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        detail = f"priority must be between {MIN_PRIORITY} and {MAX_PRIORITY}."
        raise InvalidConfig(detail, errors=[Fault(pointer="/priority", code="out_of_range", detail=detail)])
    return priority

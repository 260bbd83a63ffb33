"""Jobs, as people see them: asking for one, looking at it, stopping it. `service.leases` is the runner's side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, func, select
from sqlalchemy.orm import Session

from service import compatibility, datasets, lifecycle, models, text
from service.db import ids
from service.db.models import Artifact, Checkpoint, Dataset, Job, JobEvent
from service.db.pagination import Page, newest_first
from service.db.session import clock
from service.db.statuses import DatasetStatus, JobStatus
from service.errors import (
    ArtifactNotFound,
    DatasetFailed,
    DatasetNotReady,
    InvalidConfig,
    JobNotFound,
    ModelNeeded,
    UnknownKind,
)
from service.kinds import BASELINE_KINDS, COMPARED_KINDS, INGEST
from ssl_core.config import KINDS, RunConfig
from ssl_core.errors import Fault

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
    compatibility.check_dataset(dataset, config)
    if model is None and config.needs_model:
        detail = f"Name the model that {kind} works on."
        raise ModelNeeded(errors=[Fault(pointer="/model", code="model_needed", detail=detail)])
    source = models.source(session, tenant_id, model) if model is not None else models.Source(None, None)
    if source.model_id is not None:
        compatibility.check_model(models.card(session, source.model_id), config)
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
        status=JobStatus.QUEUED if model is None or source.model_id is not None else JobStatus.WAITING,
        created_at=clock(session),
    )
    waits_for = "a worker" if job.status == JobStatus.QUEUED else f"{job.parent_id} to make the model"
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


@dataclass(frozen=True, slots=True)
class SupervisedBaseline:
    """What a `supervised` run reached by so many labels."""

    job: str
    labels: int | None
    top1: float | None
    top1_interval: list[float] | None


def supervised_baselines(session: Session, job: Job) -> list[SupervisedBaseline]:
    """Return the `supervised` runs on its dataset to hold the job's accuracy against, newest first: one for each number
    of labels, at most 20. None of a job of another kind than linear_eval, knn_eval, finetune and distill.
    """
    if job.kind not in COMPARED_KINDS or job.status != JobStatus.SUCCEEDED:
        return []
    runs = session.execute(_SUPERVISED, {"tenant_id": job.tenant_id, "dataset_id": job.dataset_id})
    return [SupervisedBaseline(run.id, run.labels, run.top1, run.interval) for run in runs]


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
    return and_(Job.tenant_id == tenant_id, Job.kind != INGEST)


# What every poll asks, built once: building a statement takes longer than running it.
_ONE = select(Job).where(_mine(bindparam("tenant_id")), Job.id == bindparam("job_id"))
_NEWEST = (  # by the number of labels
    select(func.max(Job.id))
    .where(_mine(bindparam("tenant_id")), Job.dataset_id == bindparam("dataset_id"))
    .where(Job.kind.in_(BASELINE_KINDS), Job.status == JobStatus.SUCCEEDED)
    .group_by(Job.summary["labels"].as_string())
)
_SUPERVISED = (
    select(
        Job.id,
        Job.summary["labels"].as_json().label("labels"),
        Job.summary["top1"].as_json().label("top1"),
        Job.summary["top1_interval"].as_json().label("interval"),
    )
    .where(Job.id.in_(_NEWEST))
    .order_by(Job.id.desc())
    .limit(20)
)
_STANDING = _ONE.with_only_columns(Job.last_point, Job.status)
_TRANSITIONS = (
    select(JobEvent).where(JobEvent.job_id == bindparam("job_id"), JobEvent.code == "status").order_by(JobEvent.seq)
)


def _ready(session: Session, tenant_id: str, dataset_id: str) -> Dataset:
    """Return the dataset, held against deletion until we commit, when a job can use it."""
    dataset = datasets.get(session, tenant_id, dataset_id, held=True)
    if dataset.status == DatasetStatus.VALIDATING:
        raise DatasetNotReady
    if dataset.status == DatasetStatus.FAILED:
        raise DatasetFailed
    return dataset


def _priority(priority: int) -> int:
    if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        detail = f"priority must be between {MIN_PRIORITY} and {MAX_PRIORITY}."
        raise InvalidConfig(detail, errors=[Fault(pointer="/priority", code="out_of_range", detail=detail)])
    return priority

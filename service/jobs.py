"""Jobs: the client's side, to submit, get and list them. `service.steering` pauses, retries and cancels them;
`service.leases` is the worker's side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, Row, Select, and_, bindparam, false, func, select
from sqlalchemy.orm import Session

from service import compatibility, datasets, lifecycle, models, text
from service.db import ids
from service.db.kinds import BASELINE_KINDS, COMPARED_KINDS, HIDDEN_KINDS
from service.db.models import Artifact, Checkpoint, Job, JobEvent
from service.db.pagination import Page, newest_first
from service.db.session import Reader, clock
from service.db.statuses import JobStatus
from service.errors import (
    ArtifactNotFound,
    InvalidConfig,
    JobNotFound,
    ModelNeeded,
)
from ssl_core.config import RunConfig
from ssl_core.errors import Fault

MIN_PRIORITY, MAX_PRIORITY = -1000, 1000
ShownJob: TypeAlias = Row[*tuple[Any, ...]]  # the columns of `Job`
StatusChange: TypeAlias = Row[Any, Any, Any, Any]  # job_id, time, message, and data with the new status


class JobState(NamedTuple):
    """What of a job changes while it runs: the `seq` of its last metric point and of its last event, and its status."""

    last_point: int
    last_event: int
    status: str


def submit(
    session: Session,
    tenant_id: str,
    dataset_id: str,
    config: RunConfig,
    *,
    model: str | None = None,
    name: str | None = None,
    priority: int = 0,
    metadata: Mapping[str, str] | None = None,
    max_runtime: int | None = None,
    sweep: str | None = None,
) -> Job:
    """Create a job of the config's kind: `queued`, or `waiting` when `model` names a job that has not ended.

    All that can be checked without running it is: raises DatasetNotFound, DatasetNotReady, DatasetFailed, LabelsNeeded,
    BatchTooLarge, TooFewImages, InvalidConfig, ModelNeeded, ModelNotFound, ModelNotReady, ParentFailed, InvalidRequest.
    """
    dataset = datasets.get_ready(session, tenant_id, dataset_id, lock=True)
    compatibility.check_dataset(dataset, config)
    if model is None and config.needs_model:
        detail = f"A job of the kind {config.kind} needs a model."
        raise ModelNeeded(errors=[Fault(pointer="/model", code="model_needed", detail=detail)])
    source = models.find_source(session, tenant_id, model) if model is not None else models.Source(None, None)
    if source.model_id is not None:
        compatibility.check_model(models.get_card(session, source.model_id), config, dataset)
    job = Job(
        id=ids.new("job"),
        tenant_id=tenant_id,
        kind=config.kind,
        queue="train",
        name=text.check_line(name, "/name") if name is not None else None,
        dataset_id=dataset.id,
        model_id=source.model_id,
        parent_id=source.parent_id,
        config=config.model_dump(mode="json"),
        user_metadata=text.check_metadata(metadata or {}),
        priority=check_priority(priority),
        max_runtime=max_runtime,
        sweep_id=sweep,
        status=JobStatus.QUEUED if model is None or source.model_id is not None else JobStatus.WAITING,
        created_at=clock(session),
    )
    waits_for = "a worker" if job.status == JobStatus.QUEUED else f"{job.parent_id} to make the model"
    lifecycle.insert(session, job, f"Waits for {waits_for}.")
    return job


def get(session: Session, tenant_id: str, job_id: str) -> Job:
    """Return the tenant's job. Raises JobNotFound."""
    job: Job = _select_one(session, _SELECT_BY_ID, tenant_id, job_id)[0]
    return job


def lock(session: Session, tenant_id: str, job_id: str) -> Job:
    """Return what `get` does, its row locked until the commit. Raises JobNotFound."""
    get(session, tenant_id, job_id)
    job: Job = _select_one(session, _SELECT_BY_ID_FOR_UPDATE, tenant_id, job_id)[0]
    return job


def hold(session: Session, tenant_id: str, job_id: str) -> Job:
    """Return what `get` does; its row is locked against deletion until the commit. Raises JobNotFound."""
    job: Job = _select_one(session, _SELECT_BY_ID_FOR_SHARE, tenant_id, job_id)[0]
    return job


def show(reader: Reader, tenant_id: str, job_id: str) -> ShownJob:
    """Return what `get` does, as a row."""
    return _select_one(reader, _SELECT_ROW, tenant_id, job_id)


def poll(reader: Reader, tenant_id: str, job_id: str) -> JobState:
    """Return the state of the job. Raises JobNotFound."""
    return JobState(*_select_one(reader, _SELECT_POLL, tenant_id, job_id))


def poll_all(reader: Reader, job_ids: Iterable[str]) -> dict[str, JobState]:
    """Return what `poll` returns for each of the jobs that exist, of every owner."""
    rows = reader.execute(_SELECT_POLL_ALL, {"job_ids": list(job_ids)})
    return {job_id: JobState(*state) for job_id, *state in rows}


def list_(
    session: Session,
    tenant_id: str,
    after: str | None = None,
    limit: int = 20,
    *,
    status: str | None = None,
    kind: str | None = None,
    dataset: str | None = None,
    sweep: str | None = None,
) -> Page[Job]:
    """Return the tenant's jobs, newest first."""
    given = {Job.status: status, Job.kind: kind, Job.dataset_id: dataset, Job.sweep_id: sweep}
    filters = {column: value for column, value in given.items() if value is not None}
    conditions = [column == value if text.is_printable(value) else false() for column, value in filters.items()]
    return newest_first(session, select(Job).where(owned_by(tenant_id), *conditions), Job.id, after, limit)


@dataclass(frozen=True, slots=True)
class Events:
    """Events in ascending `seq`; `last` is the `after` of the next page."""

    items: Sequence[JobEvent]
    has_more: bool
    last: int


def events(session: Session, job_id: str, after: int = 0, limit: int = 100) -> Events:
    """Return the job's events after the one of `seq` `after`. The caller has checked the owner by `get`."""
    after = min(after, 2**31 - 1)  # the largest value of the column
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    rows = session.scalars(query.order_by(JobEvent.seq).limit(limit + 1)).all()
    items = rows[:limit]
    return Events(items, len(rows) > limit, items[-1].seq if items else after)


def transitions(reader: Reader, job_id: str) -> Sequence[StatusChange]:
    """Return the job's status changes, oldest first."""
    return reader.execute(_SELECT_TRANSITIONS, {"job_id": job_id}).all()


def transitions_by_job(session: Session, job_ids: Sequence[str]) -> dict[str, list[StatusChange]]:
    """Return the `transitions` of several jobs, by job id."""
    query = _SELECT_STATUS_CHANGES.where(_EVENTS.job_id.in_(job_ids)).order_by(_EVENTS.job_id, _EVENTS.seq)
    found: dict[str, list[StatusChange]] = {job_id: [] for job_id in job_ids}
    for change in session.execute(query):
        found[change.job_id].append(change)
    return found


@dataclass(frozen=True, slots=True)
class SupervisedBaseline:
    """The accuracy of a `supervised` run, and its number of labels."""

    job: str
    labels: int | None
    top1: float | None
    top1_interval: list[float] | None


def supervised_baselines(reader: Reader, job: Job | ShownJob) -> list[SupervisedBaseline]:
    """Return the `supervised` runs on the job's dataset, for comparison: the newest for each number of labels, newest
    first, at most 20. Empty unless the job is a linear_eval, knn_eval, finetune or distill that has succeeded.
    """
    if job.kind not in COMPARED_KINDS or job.status != JobStatus.SUCCEEDED:
        return []
    runs = reader.execute(_SELECT_BASELINES, {"tenant_id": job.tenant_id, "dataset_id": job.dataset_id})
    return [SupervisedBaseline(run.id, run.labels, run.top1, run.interval) for run in runs]


def checkpoints(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """Return the job's checkpoints, the highest step first."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return session.scalars(query.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())).all()


def artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    """Return the job's artifacts by name."""
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()


def artifact(session: Session, job_id: str, name: str) -> Artifact:
    """Return the job's artifact of that name. Raises ArtifactNotFound."""
    if not text.is_printable(name):
        raise ArtifactNotFound
    found = session.scalars(select(Artifact).where(Artifact.job_id == job_id, Artifact.name == name)).one_or_none()
    if found is None:
        raise ArtifactNotFound
    return found


def _select_one(reader: Reader, statement: Select[*tuple[Any, ...]], tenant_id: str, job_id: str) -> ShownJob:
    if not ids.is_valid(job_id):
        raise JobNotFound
    row = reader.execute(statement, {"tenant_id": tenant_id, "job_id": job_id}).one_or_none()
    if row is None:
        raise JobNotFound
    return row


def owned_by(tenant_id: str | BindParameter[str]) -> ColumnElement[bool]:
    """Return the condition of a tenant's jobs, without those of the hidden kinds, and deleted ones."""
    shown = (Job.kind != kind for kind in HIDDEN_KINDS)
    return and_(Job.tenant_id == tenant_id, *shown, Job.deleted_at.is_(None))


# Built once: building a statement takes longer than running it.
_SELECT_BY_ID = select(Job).where(owned_by(bindparam("tenant_id")), Job.id == bindparam("job_id"))
_SELECT_BY_ID_FOR_UPDATE = _SELECT_BY_ID.with_for_update(key_share=True).execution_options(populate_existing=True)
_SELECT_BY_ID_FOR_SHARE = _SELECT_BY_ID.with_for_update(read=True).execution_options(populate_existing=True)
_SELECT_NEWEST_BASELINES = (  # by the number of labels
    select(func.max(Job.id))
    .where(owned_by(bindparam("tenant_id")), Job.dataset_id == bindparam("dataset_id"))
    .where(Job.kind.in_(BASELINE_KINDS), Job.status == JobStatus.SUCCEEDED)
    .group_by(Job.summary["labels"].as_string())
)
_SELECT_BASELINES = (
    select(
        Job.id,
        Job.summary["labels"].as_json().label("labels"),
        Job.summary["top1"].as_json().label("top1"),
        Job.summary["top1_interval"].as_json().label("interval"),
    )
    .where(Job.id.in_(_SELECT_NEWEST_BASELINES))
    .order_by(Job.id.desc())
    .limit(20)
)
# Of the tables' columns, which takes half as long as by the ORM.
_JOBS, _EVENTS = Job.__table__.c, JobEvent.__table__.c
_SELECT_ROW = select(*_JOBS).where(
    _JOBS.tenant_id == bindparam("tenant_id"),
    *(_JOBS.kind != kind for kind in HIDDEN_KINDS),
    _JOBS.deleted_at.is_(None),
    _JOBS.id == bindparam("job_id"),
)
_STATE = (_JOBS.last_point, _JOBS.last_event, _JOBS.status)  # the fields of `JobState`
_SELECT_POLL = _SELECT_ROW.with_only_columns(*_STATE)
_SELECT_POLL_ALL = select(_JOBS.id, *_STATE).where(_JOBS.id.in_(bindparam("job_ids", expanding=True)))
_SELECT_STATUS_CHANGES = select(_EVENTS.job_id, _EVENTS.time, _EVENTS.message, _EVENTS.data).where(
    _EVENTS.code == "status"
)
_SELECT_TRANSITIONS = _SELECT_STATUS_CHANGES.where(_EVENTS.job_id == bindparam("job_id")).order_by(_EVENTS.seq)


def check_priority(priority: int) -> int:
    """Return the priority. Raises InvalidConfig when it is out of range."""
    if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        detail = f"priority must be between {MIN_PRIORITY} and {MAX_PRIORITY}."
        raise InvalidConfig(detail, errors=[Fault(pointer="/priority", code="out_of_range", detail=detail)])
    return priority

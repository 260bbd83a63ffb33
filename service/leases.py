"""Leases: the runner's side of jobs. A claim holds a job for a while and numbers the attempt; every later write of the
runner names that attempt, and finds no row once the job has been taken back. A queued job with a lease is one that
nobody may have yet: its last attempt came to nothing, and what was in its way may need a moment to go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from service import lifecycle
from service import record as recording
from service.db.models import Checkpoint, Dataset, Job, Json, Model
from service.db.session import clock, now
from service.db.statuses import HELD, JobStatus
from service.kinds import IMPORT, INGEST
from service.lifecycle import Ending
from service.settings import Settings
from ssl_core.events import Event

Signal = Literal["run", "cancel", "pause"]
NO_PROGRESS = "no_progress"
MOST_DOUBLINGS = 6  # of the pause after an attempt without progress
_SIGNALS: dict[str, Signal] = {JobStatus.RUNNING: "run", JobStatus.CANCELLING: "cancel", JobStatus.PAUSING: "pause"}


class LeaseLost(Exception):
    """The job is no longer this runner's: it was taken back, or it has ended."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A received file (`Storage.upload_path`): images to ingest, or weights to import."""

    tenant_id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A file to go on from; `path` is relative to the storage root."""

    path: str
    sha256: str
    step: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A job to run, as it was when it was claimed. Paths are relative to the storage root."""

    job_id: str
    tenant_id: str
    kind: str
    attempt: int
    config: Json  # with `kind`; the resolved one once there is one
    dataset_id: str | None
    dataset_path: str | None
    upload: Upload | None
    model_path: str | None
    checkpoints: tuple[CheckpointRef, ...]  # the furthest first
    provenance: Json  # what a model's card says of its origin

    @property
    def checkpoint(self) -> CheckpointRef | None:
        """The furthest checkpoint."""
        return self.checkpoints[0] if self.checkpoints else None


def claim(session: Session, queue: str, worker: str, lease_seconds: float) -> Claim | None:
    """Take the best queued job (priority, then age) of the queue, or None: one conditional UPDATE decides."""
    best = (
        select(Job.id)
        .where(Job.queue == queue, _due())
        .order_by(Job.priority.desc(), Job.id)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )
    taken = (
        update(Job)
        .where(Job.id == best.scalar_subquery(), _due())
        .values(
            status=JobStatus.RUNNING,
            attempt=Job.attempt + 1,
            attempt_progress=False,
            lease_until=now() + lease_seconds,
            worker=worker,
            started_at=func.coalesce(Job.started_at, now()),
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    job = session.scalars(taken).one_or_none()
    if job is None:
        return None
    lifecycle.move(session, job, JobStatus.RUNNING, f"Attempt {job.attempt} runs on {worker}.", worker=worker)
    session.flush()
    return _claim(session, job)


def renew(session: Session, job_id: str, attempt: int, lease_seconds: float) -> Signal:
    """Hold the job for another `lease_seconds` from now; return what its user wants. Raises LeaseLost."""
    return _SIGNALS[_held(session, job_id, attempt, lease_seconds).status]


def record(
    session: Session,
    job_id: str,
    attempt: int,
    lease_seconds: float,
    events: Sequence[Event],
    attempt_path: str,
) -> Signal:
    """Renew the lease and store the events, in order, with paths made relative to the storage root by `attempt_path`.

    Raises LeaseLost, and `service.record.BadEvent` for an event that cannot be stored, of which nothing is.
    """
    job = _held(session, job_id, attempt, lease_seconds)
    recording.store(session, job, events, attempt_path)
    return _SIGNALS[job.status]


def disown(session: Session, job_id: str, attempt: int, path: str, lease_seconds: float) -> None:
    """Forget a checkpoint whose file is not as it was written, so that it crowds out none that is. Raises LeaseLost."""
    _held(session, job_id, attempt, lease_seconds)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.path == path))


def finish(session: Session, job_id: str, attempt: int, status: Ending, error: Json | None = None) -> None:
    """End the job; `error` is {"code", "detail", …} of a failed one. Raises LeaseLost.

    An ingestion's dataset becomes ready or failed with it, and jobs that wait for this one are told.
    """
    job = _held(session, job_id, attempt, 0)
    detail = str(error.get("detail", "")) if error else ""
    lifecycle.end(session, job, status, detail or f"The job {_WORDS[status]}.", error)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """With attempts that come to nothing: so many in a row end the job, and after each it waits, twice as long."""

    attempts: int = 3
    seconds: float = 0  # after the first

    @classmethod
    def of(cls, settings: Settings) -> "RetryPolicy":
        return cls(settings.max_fruitless_attempts, settings.retry_seconds)


def release(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    reason: str,
    counts: bool,
    waits: bool = False,
    patience: RetryPolicy = RetryPolicy(),
) -> str:
    """Give the job back, `queued` again, and return its new status. Raises LeaseLost.

    With `counts` (a fault of the machinery, not a stop of ours) an attempt without progress tries our `patience`. With
    `waits` the job rests as after the first of those, however often. A job being cancelled is cancelled, one being
    paused is paused.
    """
    job = _held(session, job_id, attempt, 0)
    return _give_back(session, job, reason, counts, patience, waits)


def reap(session: Session, patience: RetryPolicy = RetryPolicy()) -> list[str]:
    """Take back every job whose lease has run out; return their ids."""
    expired = (
        select(Job)
        .where(Job.status.in_(HELD), Job.lease_until < now())
        .order_by(Job.id)
        .limit(1000)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    )
    jobs = session.scalars(expired).all()
    for job in jobs:
        _give_back(session, job, f"Nothing was heard of attempt {job.attempt} for too long.", True, patience)
    return [job.id for job in jobs]


def wake(session: Session) -> int:
    """Tell every waiting job whose parent has ended; return how many there were. A backstop: `finish` tells them."""
    return lifecycle.wake(session)


def pending(session: Session) -> dict[str, int]:
    """Return how many jobs may be claimed, by queue; a queue without any is left out."""
    counted = select(Job.queue, func.count()).where(_due()).group_by(Job.queue)
    return {row[0]: row[1] for row in session.execute(counted)}


_WORDS = {JobStatus.SUCCEEDED: "succeeded", JobStatus.FAILED: "failed", JobStatus.CANCELLED: "was cancelled"}


def _due() -> ColumnElement[bool]:
    return and_(Job.status == JobStatus.QUEUED, or_(Job.lease_until.is_(None), Job.lease_until <= now()))


def _held(session: Session, job_id: str, attempt: int, lease_seconds: float) -> Job:
    """Renew the lease and return the job, locked, when it is still this attempt's. Raises LeaseLost."""
    fenced = (
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.status.in_(HELD))
        .values(lease_until=now() + lease_seconds)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    job = session.scalars(fenced).one_or_none()
    if job is None:
        raise LeaseLost(f"{job_id} is no longer held by attempt {attempt}")
    return job


def _give_back(
    session: Session, job: Job, reason: str, counts: bool, patience: RetryPolicy, waits: bool = False
) -> str:
    if job.status == JobStatus.CANCELLING:
        lifecycle.end(session, job, JobStatus.CANCELLED, reason)
        return job.status
    if counts:
        job.fruitless = 0 if job.attempt_progress else job.fruitless + 1
    if job.fruitless >= patience.attempts:
        detail = f"{job.fruitless} attempts in a row made no progress; the last: {reason}"
        lifecycle.end(session, job, JobStatus.FAILED, detail, {"code": NO_PROGRESS, "detail": detail})
        return job.status
    job.lease_until = job.worker = None
    status = JobStatus.PAUSED if job.status == JobStatus.PAUSING else JobStatus.QUEUED
    doublings = min(job.fruitless - 1, MOST_DOUBLINGS) if counts else 0
    if status == JobStatus.QUEUED and (waits or (counts and job.fruitless)) and patience.seconds:
        pause = patience.seconds * 2**doublings
        job.lease_until = clock(session) + pause
        reason = f"{reason.rstrip('.')}. Tries again in {pause:g} s."
    level = "warning" if counts or waits else "info"
    lifecycle.move(session, job, status, reason, level)
    session.flush()
    return job.status


def _claim(session: Session, job: Job) -> Claim:
    dataset = session.get(Dataset, job.dataset_id) if job.dataset_id is not None else None
    model = session.scalars(select(Model).where(Model.id == job.model_id)).one_or_none() if job.model_id else None
    return Claim(
        job_id=job.id,
        tenant_id=job.tenant_id,
        kind=job.kind,
        attempt=job.attempt,
        config={**(job.resolved or job.config), "kind": job.kind},
        dataset_id=job.dataset_id,
        dataset_path=dataset.path if dataset is not None else None,
        upload=_upload(job, dataset),
        model_path=model.path if model is not None else None,
        checkpoints=_checkpoints(session, job.id),
        provenance=_provenance(job, dataset, model),
    )


def _upload(job: Job, dataset: Dataset | None) -> Upload | None:
    if job.kind == IMPORT:
        return Upload(job.tenant_id, job.config["upload"]["sha256"])
    return Upload(job.tenant_id, dataset.sha256) if job.kind == INGEST and dataset is not None else None


def _provenance(job: Job, dataset: Dataset | None, model: Model | None) -> Json:
    """Return what a model's card is to say of its origin (`ssl_core.serialization.provenance`)."""
    data = {"licence": job.user_metadata.get("licence")}
    data |= {"id": dataset.id, "name": dataset.name} if dataset is not None else {}
    start = {"id": model.id, "name": model.name} if model is not None else None
    return {"job": job.id, "name": job.name, "dataset": {k: v for k, v in data.items() if v}, "model": start}


def _checkpoints(session: Session, job_id: str) -> tuple[CheckpointRef, ...]:
    query: Any = select(Checkpoint.path, Checkpoint.sha256, Checkpoint.step).where(Checkpoint.job_id == job_id)
    rows = session.execute(query.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())).all()
    return tuple(CheckpointRef(*row) for row in rows)

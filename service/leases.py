"""Leases: the worker's side of jobs. A claim leases a job for some seconds and numbers the attempt; every write of the
worker names that attempt, and matches no row once the job has been reclaimed. A queued job with a lease cannot be
claimed before the lease expires: it is retried with a delay after an attempt without progress.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sqlalchemy import Double, String, bindparam, delete, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from service import event_handlers, lifecycle
from service.db import turns
from service.db.kinds import EMBED_SHARDS, IMPORT, INDEX, INGEST, SHARED_KINDS
from service.db.models import Artifact, Checkpoint, Dataset, Job, Json, Model
from service.db.session import clock, now
from service.db.statuses import HELD, JobStatus
from service.embedding import shards, sharers
from service.lifecycle import Ending
from service.settings import Settings
from ssl_core.events import Event

Signal = Literal["run", "cancel", "pause"]
NO_PROGRESS = "no_progress"
MOST_DOUBLINGS = 6  # of the delay after an attempt without progress
_SIGNALS: dict[str, Signal] = {JobStatus.RUNNING: "run", JobStatus.CANCELLING: "cancel", JobStatus.PAUSING: "pause"}


class LeaseLost(Exception):
    """The job is no longer leased to this attempt: it was reclaimed, or it has ended."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A received file (`Storage.upload_path`): images to ingest, or weights to import."""

    tenant_id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A checkpoint file to resume from; `path` is relative to the storage root."""

    path: str
    sha256: str
    step: int


@dataclass(frozen=True, slots=True)
class EmbeddingsFile:
    """A file of the embeddings to index; `path` is relative to the storage root."""

    name: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A job to run, as of its claim. Paths are relative to the storage root."""

    job_id: str
    tenant_id: str
    kind: str
    attempt: int
    config: Json  # with `kind`; the resolved config if there is one
    dataset_id: str | None
    dataset_path: str | None
    upload: Upload | None
    model_path: str | None
    checkpoints: tuple[CheckpointRef, ...]  # the highest step first
    provenance: Json  # for the model card (`ssl_core.serialization.provenance`)
    embeddings: tuple[EmbeddingsFile, ...] = ()  # of a build
    seconds_left: float | None = None  # of the job's maximum runtime; None: it has none
    shards_of: str | None = None  # the job whose shards it computes: itself, or the one that it shares


def claim(session: Session, queue: str, worker: str, lease_seconds: float, max_running: int = 0) -> Claim | None:
    """Claim the queue's next job (`service.db.turns`), or return None. It is one conditional UPDATE.

    max_running: owners who run so many jobs of the queue are left out; 0: none is.
    """
    turns.wait_for_turn(session, queue)
    values = {"of_queue": queue, "max_running": max_running or 2**31 - 1, "by": worker, "seconds": lease_seconds}
    job = session.scalars(_build_claim_statement(session.get_bind().dialect.name), values).one_or_none()
    if job is None:
        return None
    lifecycle.set_status(session, job, JobStatus.RUNNING, f"Attempt {job.attempt} runs on {worker}.", worker=worker)
    if job.kind in SHARED_KINDS:
        shards.prepare(session, job)
        sharers.add_missing(session, job)
    session.flush()
    return _build_claim(session, job)


def record_events(
    session: Session,
    job_id: str,
    attempt: int,
    lease_seconds: float,
    events: Sequence[Event],
    attempt_path: str,
) -> Signal:
    """Renew the lease, store the events, and return the signal for the trainer. `attempt_path` is that of the attempt,
    relative to the storage root.

    Raises LeaseLost, and `service.event_handlers.BadEvent` when an event cannot be stored: then the caller rolls back.
    """
    job = _renew(session, job_id, attempt, lease_seconds)
    event_handlers.handle_events(session, job, events, attempt_path)
    return _SIGNALS[job.status]


def delete_checkpoint(session: Session, job_id: str, attempt: int, path: str, lease_seconds: float) -> None:
    """Delete the row of a checkpoint whose file is damaged, so that intact ones are kept instead. Raises LeaseLost."""
    _renew(session, job_id, attempt, lease_seconds)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.path == path))


def finish(session: Session, job_id: str, attempt: int, status: Ending, error: Json | None = None) -> None:
    """End the job; `error` is {"code", "detail", …} of a failed one. Raises LeaseLost.

    The dataset of an ingestion becomes ready or failed with it; jobs that wait for this one are queued or failed.
    """
    job = _renew(session, job_id, attempt, 0)
    detail = str(error.get("detail", "")) if error else ""
    lifecycle.end(session, job, status, detail or f"The job {_WORDS[status]}.", error)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """So many attempts in a row without progress fail the job; the delay after each is twice the one before."""

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
    policy: RetryPolicy = RetryPolicy(),
) -> str:
    """End the attempt: return the job to its queue, or end it, and return its new status. Raises LeaseLost.

    counts: whether an attempt without progress counts towards `policy`; it does unless the worker was asked to stop.
    waits: whether the job is retried after the first delay of `policy`, however often. A job being cancelled is
    cancelled, one being paused is paused.
    """
    job = _renew(session, job_id, attempt, 0)
    return _release(session, job, reason, counts, policy, waits)


def reap(session: Session, policy: RetryPolicy = RetryPolicy()) -> list[str]:
    """Reclaim every job whose lease has expired; return their ids."""
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
        _release(session, job, f"The lease of attempt {job.attempt} expired.", True, policy)
    return [job.id for job in jobs]


def requeue_held(session: Session, reason: str) -> list[str]:
    """Release every job that has a worker in a restored database, without counting the attempt; return their ids."""
    jobs = session.scalars(select(Job).where(Job.status.in_(HELD)).order_by(Job.id)).all()
    for job in jobs:
        _release(session, job, reason, False, RetryPolicy())
    return [job.id for job in jobs]


def count_pending(session: Session) -> dict[str, int]:
    """Return the number of jobs that can be claimed, by queue; a queue without any is left out."""
    query = select(Job.queue, func.count()).where(turns.is_claimable()).group_by(Job.queue)
    return {row[0]: row[1] for row in session.execute(query)}


_WORDS = {JobStatus.SUCCEEDED: "succeeded", JobStatus.FAILED: "failed", JobStatus.CANCELLED: "was cancelled"}


@cache  # building it takes longer than running it
def _build_claim_statement(dialect: str) -> ReturningUpdate[Job]:
    return (
        update(Job)
        .where(Job.id == turns.select_next(dialect).scalar_subquery(), turns.is_claimable())
        .values(
            status=JobStatus.RUNNING,
            attempt=Job.attempt + 1,
            attempt_progress=False,
            lease_until=now() + bindparam("seconds", type_=Double),
            worker=bindparam("by", type_=String),
            claimed_at=now(),
            started_at=func.coalesce(Job.started_at, now()),
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def _renew(session: Session, job_id: str, attempt: int, lease_seconds: float) -> Job:
    """Renew the lease and return the job, its row locked. Raises LeaseLost when the attempt does not hold it."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.status.in_(HELD))
        .values(lease_until=now() + lease_seconds)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    job = session.scalars(statement).one_or_none()
    if job is None:
        raise LeaseLost(f"{job_id} is no longer leased to attempt {attempt}")
    return job


def _release(session: Session, job: Job, reason: str, counts: bool, policy: RetryPolicy, waits: bool = False) -> str:
    if job.status == JobStatus.CANCELLING:
        lifecycle.end(session, job, JobStatus.CANCELLED, reason)
        return job.status
    if counts:
        job.fruitless = 0 if job.attempt_progress else job.fruitless + 1
    if job.fruitless >= policy.attempts:
        detail = f"{job.fruitless} attempts in a row made no progress; the last: {reason}"
        lifecycle.end(session, job, JobStatus.FAILED, detail, {"code": NO_PROGRESS, "detail": detail})
        return job.status
    status = JobStatus.PAUSED if job.status == JobStatus.PAUSING else JobStatus.QUEUED
    claimable_at = None
    if status == JobStatus.QUEUED and (waits or (counts and job.fruitless)) and policy.seconds:
        delay = policy.seconds * 2 ** (min(job.fruitless - 1, MOST_DOUBLINGS) if counts else 0)
        claimable_at = clock(session) + delay
        reason = f"{reason.rstrip('.')}. Retried in {delay:g} s."
    level = "warning" if counts or waits else "info"
    lifecycle.set_status(session, job, status, reason, level)
    job.lease_until, job.worker = claimable_at, None
    session.flush()
    return job.status


def _build_claim(session: Session, job: Job) -> Claim:
    dataset = session.get(Dataset, job.dataset_id) if job.dataset_id is not None else None
    model = session.scalars(select(Model).where(Model.id == job.model_id)).one_or_none() if job.model_id else None
    return Claim(
        job_id=job.id,
        tenant_id=job.tenant_id,
        kind=job.kind,
        attempt=job.attempt,
        config=_build_config(session, job),
        dataset_id=job.dataset_id,
        dataset_path=dataset.path if dataset is not None else None,
        upload=_find_upload(job, dataset),
        model_path=model.path if model is not None else None,
        embeddings=_list_embeddings(session, job.config["job"]) if job.kind == INDEX else (),
        seconds_left=job.max_runtime - job.run_seconds if job.max_runtime is not None else None,
        checkpoints=_list_checkpoints(session, job.id),
        provenance=_build_provenance(job, dataset, model),
        shards_of=job.parent_id if job.kind == EMBED_SHARDS else job.id if job.kind in SHARED_KINDS else None,
    )


def _build_config(session: Session, job: Job) -> Json:
    """Return the config with its kind: of a job that shares another one, that job's, on a device of its own."""
    if job.kind != EMBED_SHARDS:
        return {**(job.resolved or job.config), "kind": job.kind}
    shared = session.get_one(Job, job.parent_id)
    precision = (shared.resolved or shared.config)["precision"]
    return {**shared.config, "precision": precision, "kind": shared.kind}


def _find_upload(job: Job, dataset: Dataset | None) -> Upload | None:
    if job.kind == IMPORT:
        return Upload(job.tenant_id, job.config["upload"]["sha256"])
    return Upload(job.tenant_id, dataset.sha256) if job.kind == INGEST and dataset is not None else None


def _build_provenance(job: Job, dataset: Dataset | None, model: Model | None) -> Json:
    """Return the origin of the job's model, for its model card."""
    data = {"licence": job.user_metadata.get("licence")}
    data |= {"id": dataset.id, "name": dataset.name} if dataset is not None else {}
    start = {"id": model.id, "name": model.name} if model is not None else None
    return {"job": job.id, "name": job.name, "dataset": {k: v for k, v in data.items() if v}, "model": start}


def _list_checkpoints(session: Session, job_id: str) -> tuple[CheckpointRef, ...]:
    query: Any = select(Checkpoint.path, Checkpoint.sha256, Checkpoint.step).where(Checkpoint.job_id == job_id)
    rows = session.execute(query.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())).all()
    return tuple(CheckpointRef(*row) for row in rows)


def _list_embeddings(session: Session, job_id: str) -> tuple[EmbeddingsFile, ...]:
    query = select(Artifact.name, Artifact.path, Artifact.sha256).where(Artifact.job_id == job_id)
    rows = session.execute(query.where(Artifact.name.startswith("embeddings")).order_by(Artifact.name)).all()
    return tuple(EmbeddingsFile(*row) for row in rows)

"""The lifecycle of a job: its status transitions, each logged, and what they do to other jobs, datasets and indexes.

    waiting → queued → running → succeeded | failed | cancelled     (cancelling, pausing, paused on request)

Callers have locked the job's row (a row lock on PostgreSQL, the write transaction on SQLite). `succeeded` is final, and
so are `failed` and `cancelled` unless a client asks to retry the job. Locks are taken from parent to child and from
ingest job to dataset or building job to index, never the other way.
"""

from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from service import text
from service.db.kinds import EMBED_SHARDS, INDEX, INGEST, SHARED_KINDS
from service.db.models import Dataset, Job, JobEvent, Json, Retried, VectorIndex
from service.db.session import clock
from service.db.statuses import HELD, TERMINAL, DatasetStatus, IndexStatus, JobStatus
from service.storage import dataset_path, index_path

Ending = Literal[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]
MAX_EVENTS = 10_000  # further log lines are dropped; status changes never are
MAX_MESSAGE = 4_000  # characters

PARENT_FAILED = "parent_failed"


def append_event(session: Session, job: Job, level: str, code: str, message: str, data: Json | None = None) -> None:
    """Append an event to the job's log, with the next `seq` and the current time."""
    if job.last_event >= MAX_EVENTS and code != "status":
        return
    job.last_event += 1
    session.add(_build_event(job, clock(session), level, code, message, data or {}))


def insert(session: Session, job: Job, message: str) -> None:
    """Insert the row of a new job and the first event of its log; `message` is its `status_detail`."""
    job.attempt, job.last_event, job.status_detail = 0, 1, message
    job.queued_at = job.created_at if job.status == JobStatus.QUEUED else None
    session.add(job)
    session.flush()  # the event has a foreign key to it
    session.add(_build_event(job, job.created_at, "info", "status", message, {"status": job.status}))
    session.flush()


def set_status(session: Session, job: Job, status: str, message: str, level: str = "info", **data: Any) -> None:
    """Set the job's status and log the change; `message` is the new `status_detail`."""
    assert job.status not in TERMINAL, f"{job.id} has ended"
    if job.status in HELD and status not in HELD and job.claimed_at is not None:
        time = clock(session)  # an abandoned attempt has run until the end of its lease
        job.run_seconds += max(0.0, (time if job.lease_until is None else min(time, job.lease_until)) - job.claimed_at)
    _change_status(session, job, status, message, level, **data)


def _change_status(session: Session, job: Job, status: str, message: str, level: str = "info", **data: Any) -> None:
    job.status = status
    if status == JobStatus.QUEUED:
        job.queued_at = clock(session)
    job.status_detail = text.clean(message, MAX_MESSAGE)
    append_event(session, job, level, "status", message, {"status": status, **data})


def cancel(session: Session, job: Job) -> None:
    """Cancel the job: at once when no worker runs it, else by a signal to its worker. A terminal job is unchanged."""
    if job.status in (JobStatus.RUNNING, JobStatus.PAUSING):
        set_status(
            session, job, JobStatus.CANCELLING, "Cancellation was requested; the worker writes a checkpoint first."
        )
        session.flush()
        _cancel_sharers(session, job)
    elif job.status in (JobStatus.WAITING, JobStatus.QUEUED, JobStatus.PAUSED):
        end(session, job, JobStatus.CANCELLED, "Cancelled before it ran." if job.attempt == 0 else "Cancelled.")


def pause(session: Session, job: Job) -> None:
    """Pause the job: at once when no worker runs it, else by a signal to its worker. A paused job is unchanged."""
    if job.status == JobStatus.RUNNING:
        set_status(session, job, JobStatus.PAUSING, "A pause was requested; the worker writes a checkpoint first.")
    elif job.status in (JobStatus.WAITING, JobStatus.QUEUED):
        job.lease_until = None  # of a delayed retry
        set_status(session, job, JobStatus.PAUSED, "Paused.")
    session.flush()
    _cancel_sharers(session, job)


def resume(session: Session, job: Job, parent: Job | None) -> None:
    """Return a paused job to its queue, or let it wait for `parent`, which is to make its model."""
    if job.status == JobStatus.PAUSING:
        set_status(session, job, JobStatus.RUNNING, f"Attempt {job.attempt} runs on: the pause was withdrawn.")
    elif job.status == JobStatus.PAUSED:
        set_status(session, job, *_next_status(job, parent))
    session.flush()


def retry(session: Session, job: Job, parent: Job | None, reason: str) -> None:
    """Return a job that has failed or was cancelled to its queue, or let it wait for `parent`. Its attempts go on."""
    assert job.status in (JobStatus.FAILED, JobStatus.CANCELLED), f"{job.id} is {job.status}"
    _count_retried(session, job)
    job.error = job.finished_at = job.lease_until = job.worker = None
    job.fruitless, job.attempt_progress, job.run_seconds = 0, False, 0.0
    status, waits_for = _next_status(job, parent)
    _change_status(session, job, status, f"{reason} {waits_for}")
    session.flush()


def _count_retried(session: Session, job: Job) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    labels = {"tenant_id": job.tenant_id, "kind": job.kind, "status": str(job.status)}
    row = insert(Retried).values(**labels, jobs=1, attempts=min(job.attempt, 1))
    more = {"jobs": Retried.jobs + row.excluded.jobs, "attempts": Retried.attempts + row.excluded.attempts}
    session.execute(row.on_conflict_do_update(index_elements=[*labels], set_=more))


def _next_status(job: Job, parent: Job | None) -> tuple[JobStatus, str]:
    """The status of a job that is to run, with its sentence; `parent` has not ended, or is None."""
    if parent is None:
        return JobStatus.QUEUED, "Waits for a worker."
    return JobStatus.WAITING, f"Waits for {parent.id} to make the model."


def end(session: Session, job: Job, status: Ending, message: str, error: Json | None = None) -> None:
    """End the job; then update its dataset or index, and queue or fail the jobs that wait for this one."""
    ended = [_end(session, job, status, message, error)]
    while ended:  # a failed parent fails its children, recursively
        parent = ended.pop()
        children = (
            select(Job)
            .where(Job.parent_id == parent.id, Job.status == JobStatus.WAITING)
            .order_by(Job.id)
            .with_for_update(key_share=True)
        )
        for child in session.scalars(children):
            if not _queue_child(session, child, parent):
                ended.append(_fail_child(session, child, parent))


def resolve_waiting(session: Session) -> int:
    """Queue or fail every waiting job whose parent has ended; return their number. A backstop: `end` does so."""
    parent = aliased(Job)
    overdue = (
        select(Job, parent)
        .join(parent, parent.id == Job.parent_id)
        .where(Job.status == JobStatus.WAITING, parent.status.in_(TERMINAL))
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .limit(1000)
    )
    rows = session.execute(overdue).all()
    for child, ended_parent in rows:
        if child.status == JobStatus.WAITING and not _queue_child(session, child, ended_parent):
            message, error = _parent_error(ended_parent)
            end(session, child, JobStatus.FAILED, message, error)
    return len(rows)


def _build_event(job: Job, time: float, level: str, code: str, message: str, data: Json) -> JobEvent:
    return JobEvent(
        job_id=job.id,
        seq=job.last_event,
        time=time,
        attempt=job.attempt,
        level=level,
        code=text.clean(code, 64),
        message=text.clean(message, MAX_MESSAGE),
        data=text.clean_json(data),
    )


def _end(session: Session, job: Job, status: Ending, message: str, error: Json | None) -> Job:
    if status == JobStatus.FAILED and not error:
        error = {"code": "failed", "detail": message}
    set_status(
        session,
        job,
        status,
        message,
        "error" if status == JobStatus.FAILED else "info",
        **({"error": error} if error else {}),
    )
    job.error = text.clean_json(error) if error else None
    job.finished_at = clock(session)
    job.lease_until = None
    if job.kind == INGEST:
        _update_dataset(session, job, status, error)
    if job.kind == INDEX:
        _update_index(session, job, status, error)
    session.flush()
    _cancel_sharers(session, job)
    return job


def _cancel_sharers(session: Session, job: Job) -> None:
    """Cancel the jobs by which other workers share this one; `service.embedding.sharers` makes new ones."""
    if job.kind in SHARED_KINDS:
        sharers = select(Job).where(
            Job.parent_id == job.id, Job.kind == EMBED_SHARDS, Job.status.not_in((*TERMINAL, JobStatus.CANCELLING))
        )
        locked = sharers.order_by(Job.id).with_for_update(key_share=True).execution_options(populate_existing=True)
        for sharer in session.scalars(locked).all():
            cancel(session, sharer)


def _queue_child(session: Session, child: Job, parent: Job) -> bool:
    """Queue the child when the parent has made a model; return whether it has."""
    if parent.status != JobStatus.SUCCEEDED or parent.made_model_id is None:
        return False
    child.model_id = parent.made_model_id
    set_status(session, child, JobStatus.QUEUED, f"{parent.id} has made the model.")
    session.flush()
    return True


def _fail_child(session: Session, child: Job, parent: Job) -> Job:
    message, error = _parent_error(parent)
    return _end(session, child, JobStatus.FAILED, message, error)


def _parent_error(parent: Job) -> tuple[str, Json]:
    message = f"{parent.id}, whose model this job needs, ended as {parent.status} without one."
    return message, {"code": PARENT_FAILED, "detail": message}


def find_ready_duplicate(session: Session, dataset: Dataset) -> Dataset | None:
    """Return a ready dataset of the same bytes and options, locked against deletion until the commit, or None.

    One that an earlier version has read, without options, is none: it may have been read otherwise.
    """
    query = select(Dataset).where(
        Dataset.tenant_id == dataset.tenant_id,
        Dataset.deleted_at.is_(None),
        Dataset.status == DatasetStatus.READY,
        Dataset.sha256 == dataset.sha256,
        Dataset.on_bad_file == dataset.on_bad_file,
        Dataset.reading == dataset.reading,
    )
    return session.scalars(query.order_by(Dataset.id).limit(1).with_for_update(read=True)).one_or_none()


def _update_dataset(session: Session, job: Job, status: Ending, error: Json | None) -> None:
    """Make the dataset of an ended ingestion ready, with its report, or failed, with its error."""
    query = select(Dataset).where(Dataset.id == job.dataset_id).with_for_update(key_share=True)
    dataset = session.scalars(query.execution_options(populate_existing=True)).one()
    if dataset.status != DatasetStatus.VALIDATING:
        return
    if status == JobStatus.SUCCEEDED:
        duplicate = find_ready_duplicate(
            session, dataset
        )  # of a concurrent upload: garbage collection removes one copy
        dataset.status, dataset.report, dataset.ready_at = DatasetStatus.READY, job.summary or {}, job.finished_at
        dataset.path = duplicate.path if duplicate is not None else dataset_path(dataset.id, job.attempt)
        dataset.stored_bytes = dataset.report.get("size_bytes")
    else:
        fallback = {"code": status, "detail": f"The ingestion was {status}."}
        dataset.status, dataset.error = (
            DatasetStatus.FAILED,
            {"errors": [], **(text.clean_json(error) if error else fallback)},
        )


def _update_index(session: Session, job: Job, status: Ending, error: Json | None) -> None:
    """Make the index of an ended build ready, with its report, or failed, with its error."""
    query = select(VectorIndex).where(VectorIndex.build_id == job.id).with_for_update(key_share=True)
    index = session.scalars(query.execution_options(populate_existing=True)).one()
    if status == JobStatus.SUCCEEDED:
        index.status, index.ready_at, index.path = IndexStatus.READY, job.finished_at, index_path(index.id, job.attempt)
        report = dict(job.summary or {})
        index.layer = str(report.pop("layer", index.layer))
        index.report = report
    else:
        fallback = {"code": status, "detail": f"The building was {status}."}
        index.status, index.error = IndexStatus.FAILED, text.clean_json(error) if error else fallback

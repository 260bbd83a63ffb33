"""The lifecycle of a job: its moves from status to status, each noted, and what an ending means to others.

    waiting → queued → running → succeeded | failed | cancelled     (cancelling, pausing, paused on request)

Callers hold the job's row (a lock on PostgreSQL, the write transaction on SQLite). Terminal is final. Locks are taken
from parent to child and from ingest job to dataset, never the other way.
"""

from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from service import text
from service.db.models import Dataset, Job, JobEvent, Json
from service.db.session import clock
from service.db.statuses import TERMINAL, DatasetStatus, JobStatus
from service.kinds import INGEST
from service.storage import dataset_path

Ending = Literal[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]
MAX_EVENTS = 10_000  # log lines beyond so many are dropped; status changes never are
MAX_MESSAGE = 4_000  # characters

PARENT_FAILED = "parent_failed"


def note(session: Session, job: Job, level: str, code: str, message: str, data: Json | None = None) -> None:
    """Write down what happened to the job just now, under its next `seq`."""
    if job.last_event >= MAX_EVENTS and code != "status":
        return
    job.last_event += 1
    session.add(_event(job, clock(session), level, code, message, data or {}))


def begin(session: Session, job: Job, message: str) -> None:
    """Write the row of a new job, and the first line of its history; `message` is its `status_detail`."""
    job.attempt, job.last_event, job.status_detail = 0, 1, message
    session.add(job)
    session.flush()  # the row that the line refers to
    session.add(_event(job, job.created_at, "info", "status", message, {"status": job.status}))
    session.flush()


def move(session: Session, job: Job, status: str, message: str, level: str = "info", **data: Any) -> None:
    """Give the job another status and note it; `message` is the new `status_detail`."""
    assert job.status not in TERMINAL, f"{job.id} has ended"
    job.status = status
    job.status_detail = text.cleaned(message, MAX_MESSAGE)
    note(session, job, level, "status", message, {"status": status, **data})


def cancel(session: Session, job: Job) -> None:
    """Stop the job: at once when nobody runs it, else by asking its runner; one that has ended stays as it is."""
    if job.status in (JobStatus.RUNNING, JobStatus.PAUSING):
        move(session, job, JobStatus.CANCELLING, "Asked to stop; the runner writes a checkpoint first.")
        session.flush()
    elif job.status in (JobStatus.WAITING, JobStatus.QUEUED, JobStatus.PAUSED):
        end(session, job, JobStatus.CANCELLED, "Cancelled before it ran." if job.attempt == 0 else "Cancelled.")


def end(session: Session, job: Job, status: Ending, message: str, error: Json | None = None) -> None:
    """End the job for good; then its dataset is resolved, if it was an ingestion, and its waiting children are told."""
    ended = [_end(session, job, status, message, error)]
    while ended:  # a failed parent ends its children, and they theirs
        parent = ended.pop()
        children = (
            select(Job)
            .where(Job.parent_id == parent.id, Job.status == JobStatus.WAITING)
            .with_for_update(key_share=True)
        )
        for child in session.scalars(children):
            if not _start(session, child, parent):
                ended.append(_fail_orphan(session, child, parent))


def wake(session: Session) -> int:
    """Tell every waiting job whose parent has ended, in case nobody did; return how many there were."""
    parent = aliased(Job)
    late = (
        select(Job, parent)
        .join(parent, parent.id == Job.parent_id)
        .where(Job.status == JobStatus.WAITING, parent.status.in_(TERMINAL))
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .limit(1000)
    )
    rows = session.execute(late).all()
    for child, its_parent in rows:
        if child.status == JobStatus.WAITING and not _start(session, child, its_parent):
            message, error = _orphan(its_parent)
            end(session, child, JobStatus.FAILED, message, error)
    return len(rows)


def _event(job: Job, time: float, level: str, code: str, message: str, data: Json) -> JobEvent:
    return JobEvent(
        job_id=job.id,
        seq=job.last_event,
        time=time,
        attempt=job.attempt,
        level=level,
        code=text.cleaned(code, 64),
        message=text.cleaned(message, MAX_MESSAGE),
        data=text.cleaned_json(data),
    )


def _end(session: Session, job: Job, status: Ending, message: str, error: Json | None) -> Job:
    if status == JobStatus.FAILED and not error:
        error = {"code": "failed", "detail": message}
    move(
        session,
        job,
        status,
        message,
        "error" if status == JobStatus.FAILED else "info",
        **({"error": error} if error else {}),
    )
    job.error = text.cleaned_json(error) if error else None
    job.finished_at = clock(session)
    job.lease_until = None
    if job.kind == INGEST:
        _finish_dataset(session, job, status, error)
    session.flush()
    return job


def _start(session: Session, child: Job, parent: Job) -> bool:
    """Queue the child when the parent left a model; tell whether it did."""
    if parent.status != JobStatus.SUCCEEDED or parent.made_model_id is None:
        return False
    child.model_id = parent.made_model_id
    move(session, child, JobStatus.QUEUED, f"{parent.id} has made the model.")
    session.flush()
    return True


def _fail_orphan(session: Session, child: Job, parent: Job) -> Job:
    message, error = _orphan(parent)
    return _end(session, child, JobStatus.FAILED, message, error)


def _orphan(parent: Job) -> tuple[str, Json]:
    message = f"{parent.id}, which was to make the model, ended as {parent.status} without one."
    return message, {"code": PARENT_FAILED, "detail": message}


def ready_twin(session: Session, dataset: Dataset) -> Dataset | None:
    """Return a dataset that is ready with the same bytes and policy, held against deletion until we commit."""
    query = select(Dataset).where(
        Dataset.tenant_id == dataset.tenant_id,
        Dataset.deleted_at.is_(None),
        Dataset.status == DatasetStatus.READY,
        Dataset.sha256 == dataset.sha256,
        Dataset.on_bad_file == dataset.on_bad_file,
    )
    return session.scalars(query.order_by(Dataset.id).limit(1).with_for_update(read=True)).one_or_none()


def _finish_dataset(session: Session, job: Job, status: Ending, error: Json | None) -> None:
    """Make the dataset ready, with the report that the ingestion left, or failed with its error."""
    found = select(Dataset).where(Dataset.id == job.dataset_id).with_for_update(key_share=True)
    dataset = session.scalars(found.execution_options(populate_existing=True)).one()
    if dataset.status != DatasetStatus.VALIDATING:
        return
    if status == JobStatus.SUCCEEDED:
        twin = ready_twin(session, dataset)  # uploaded while we were at it: one of the two copies is a leftover
        dataset.status, dataset.report, dataset.ready_at = DatasetStatus.READY, job.summary or {}, job.finished_at
        dataset.path = twin.path if twin is not None else dataset_path(dataset.id, job.attempt)
    else:
        fallback = {"code": status, "detail": f"The ingestion was {status}."}
        dataset.status, dataset.error = (
            DatasetStatus.FAILED,
            {"errors": [], **(text.cleaned_json(error) if error else fallback)},
        )

"""A record: what a batch of a run's events leaves in the database. The caller holds the job's row.

What is done with an event is one function, found in a literal dict; metrics are stored first and together, because
each checkpoint promises that the metrics up to its step are stored.
"""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service import lifecycle, metrics, text
from service.db import ids
from service.db.models import Artifact, Checkpoint, Job, Model
from service.db.session import clock
from ssl_core import events as ev


class BadEvent(ValueError):
    """An event cannot be stored: the trainer breaks the protocol, and no other attempt would mend that."""


def store(session: Session, job: Job, events: Sequence[ev.Event], attempt_path: str) -> None:
    """Store the events. A metric or a checkpoint that is further than any before is progress of the attempt.

    Raises BadEvent.
    """
    try:
        advanced = metrics.append(session, job, [event for event in events if isinstance(event, ev.Metrics)])
        if advanced:
            _progressed(job)
        for event in events:
            _STORES.get(type(event), _nothing)(session, job, event, attempt_path)
    except metrics.BadPoint as error:
        raise BadEvent(str(error)) from error
    session.flush()


def _progressed(job: Job) -> None:
    job.attempt_progress = True
    job.fruitless = 0


def _resolved(session: Session, job: Job, event: ev.Resolved, attempt_path: str) -> None:
    job.resolved = text.cleaned_json(event.config)


def _progress(session: Session, job: Job, event: ev.Progress, attempt_path: str) -> None:
    whole = event.step / event.total_steps if event.total_steps else 0.0
    job.progress = text.cleaned_json(
        {
            "epoch": event.epoch,
            "epochs": event.epochs,
            "step": event.step,
            "total_steps": event.total_steps,
            "percent": round(100 * min(1.0, whole), 2),
            "eta_seconds": event.eta_seconds,
            "images_per_second": event.images_per_second,
        }
    )


def _checkpoint(session: Session, job: Job, event: ev.Checkpoint, attempt_path: str) -> None:
    row = Checkpoint(
        id=ids.new("ckpt"),
        job_id=job.id,
        attempt=job.attempt,
        step=_count(event.step, "step"),
        epoch=metrics.finite(event.epoch, "epoch"),
        path=_inside(attempt_path, event.path),
        sha256=_digest(event.sha256),
        size_bytes=_count(event.size_bytes, "size_bytes"),
        metrics=text.cleaned_json(event.metrics),
        created_at=clock(session),
    )
    mine = Checkpoint.job_id == job.id
    before = session.execute(select(func.max(Checkpoint.step)).where(mine)).scalar_one()
    session.execute(delete(Checkpoint).where(mine, Checkpoint.attempt == row.attempt, Checkpoint.step == row.step))
    session.add(row)
    session.flush()
    _forget_old_checkpoints(session, job)
    if before is None or row.step > before:
        _progressed(job)


def _forget_old_checkpoints(session: Session, job: Job) -> None:
    """Keep as many rows as the trainer keeps files, of the latest attempts: they went on from what could be read."""
    keep = int(job.config.get("checkpoints", {}).get("keep", 2))
    mine = select(Checkpoint.id).where(Checkpoint.job_id == job.id)
    old = session.scalars(mine.order_by(Checkpoint.attempt.desc(), Checkpoint.step.desc()).offset(keep)).all()
    if old:
        session.execute(delete(Checkpoint).where(Checkpoint.id.in_(old)))


def _artifact(session: Session, job: Job, event: ev.Artifact, attempt_path: str) -> None:
    if not (0 < len(event.name) <= 200 and text.printable(event.name)):
        raise BadEvent(f"an artifact's name must be 1 to 200 printable characters: {event.name[:200]!r}")
    row = Artifact(
        job_id=job.id,
        name=event.name,
        path=_inside(attempt_path, event.path),
        media_type=text.cleaned(event.media_type, 100),
        sha256=_digest(event.sha256),
        size_bytes=_count(event.size_bytes, "size_bytes"),
        created_at=clock(session),
    )
    session.merge(row)
    session.flush()


def _model(session: Session, job: Job, event: ev.Model, attempt_path: str) -> None:
    """A later attempt's model replaces an earlier one's: there is one for each job."""
    model = session.scalars(select(Model).where(Model.job_id == job.id)).one_or_none()
    if model is None:
        model = Model(id=ids.new("mdl"), tenant_id=job.tenant_id, job_id=job.id, created_at=clock(session))
        session.add(model)
    model.name = job.name or f"model of {job.id}"
    model.path = _inside(attempt_path, event.path)
    model.sha256 = _digest(event.sha256)
    model.size_bytes = _count(event.size_bytes, "size_bytes")
    model.dim = _count(event.dim, "dim", 2**31)
    model.card = text.cleaned_json(event.card)
    session.flush()  # before the job's row points at it
    job.made_model_id = model.id


def _log(session: Session, job: Job, event: ev.Log, attempt_path: str) -> None:
    level = event.level if event.level in ("info", "warning", "error") else "info"
    code = event.code if event.code != "status" else "log"  # statuses are ours to tell
    lifecycle.note(session, job, level, code, event.message, event.data)


def _result(session: Session, job: Job, event: ev.Result, attempt_path: str) -> None:
    job.summary = text.cleaned_json(event.summary)


def _nothing(session: Session, job: Job, event: ev.Event, attempt_path: str) -> None:
    """Metrics are stored together; Stopped and Failed are for the supervisor, who knows what they lead to."""


_STORES: dict[type, Callable[[Session, Job, Any, str], None]] = {
    ev.Resolved: _resolved,
    ev.Progress: _progress,
    ev.Checkpoint: _checkpoint,
    ev.Artifact: _artifact,
    ev.Model: _model,
    ev.Log: _log,
    ev.Result: _result,
}


def _inside(attempt_path: str, path: object) -> str:
    """Return a path of the attempt as the database keeps it. Raises BadEvent when it leads elsewhere."""
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    if not parts or parts[0] == "/" or ".." in parts or not text.printable(str(path)):
        raise BadEvent(f"not a path inside the attempt's folder: {path!r}")
    joined = str(PurePosixPath(attempt_path, *parts))
    if len(joined) > 400:
        raise BadEvent(f"a path is too long: {path!r}")
    return joined


def _digest(value: object) -> str:
    if not (isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")):
        raise BadEvent(f"not a SHA-256 in lower-case hex: {value!r}")
    return value


def _count(value: object, name: str, below: int = 2**63) -> int:
    if not isinstance(value, int) or not 0 <= value < below:
        raise BadEvent(f"{name} must be an integer from 0 to {below - 1}: {value!r}")
    return value

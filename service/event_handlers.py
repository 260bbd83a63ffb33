"""Event handlers: each stores one type of a run's events in the database. The caller has locked the job's row.

Metrics are stored first and together, because a checkpoint guarantees that the metrics up to its step are stored.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service import lifecycle, metrics, text
from service.db import ids
from service.db.kinds import SHARED_KINDS
from service.db.models import Artifact, Checkpoint, Job, Model
from service.db.session import clock
from service.embedding import shards
from ssl_core import events as ev
from ssl_core.config.embedding import MAX_SHARDS, name_files


class BadEvent(ValueError):
    """An event cannot be stored: the trainer violates the protocol, and so would every further attempt."""


def handle_events(session: Session, job: Job, events: Sequence[ev.Event], attempt_path: str) -> None:
    """Store the events. A metric or a checkpoint beyond the last stored step is progress of the attempt.

    Raises BadEvent.
    """
    try:
        advanced = metrics.append(session, job, [event for event in events if isinstance(event, ev.Metrics)])
        if advanced:
            _mark_progress(job)
        for event in events:
            _HANDLERS.get(type(event), _ignore)(session, job, event, attempt_path)
    except metrics.BadPoint as error:
        raise BadEvent(str(error)) from error
    session.flush()


def _mark_progress(job: Job) -> None:
    job.attempt_progress = True
    job.fruitless = 0


def _store_resolved(session: Session, job: Job, event: ev.Resolved, attempt_path: str) -> None:
    job.resolved = text.clean_json(event.config)


def _store_progress(session: Session, job: Job, event: ev.Progress, attempt_path: str) -> None:
    if job.kind in SHARED_KINDS:
        event = shards.combine_progress(session, job, event)
    fraction = event.step / event.total_steps if event.total_steps else 0.0
    job.progress = text.clean_json(
        {
            "epoch": event.epoch,
            "epochs": event.epochs,
            "step": event.step,
            "total_steps": event.total_steps,
            "percent": round(100 * min(1.0, fraction), 2),
            "eta_seconds": event.eta_seconds,
            "images_per_second": event.images_per_second,
        }
    )


def _store_checkpoint(session: Session, job: Job, event: ev.Checkpoint, attempt_path: str) -> None:
    row = Checkpoint(
        id=ids.new("ckpt"),
        job_id=job.id,
        attempt=job.attempt,
        step=_check_count(event.step, "step"),
        epoch=metrics.check_finite(event.epoch, "epoch"),
        path=_path_in_attempt(attempt_path, event.path),
        sha256=_check_sha256(event.sha256),
        size_bytes=_check_count(event.size_bytes, "size_bytes"),
        metrics=text.clean_json(event.metrics),
        created_at=clock(session),
    )
    of_job = Checkpoint.job_id == job.id
    last_step = session.execute(select(func.max(Checkpoint.step)).where(of_job)).scalar_one()
    session.execute(delete(Checkpoint).where(of_job, Checkpoint.attempt == row.attempt, Checkpoint.step == row.step))
    session.add(row)
    session.flush()
    _delete_old_checkpoints(session, job)
    if last_step is None or row.step > last_step:
        _mark_progress(job)


def _delete_old_checkpoints(session: Session, job: Job) -> None:
    """Keep the newest rows, of the latest attempts: these resumed from readable checkpoints."""
    keep = count_kept_checkpoints(job.config)
    ids_of_job = select(Checkpoint.id).where(Checkpoint.job_id == job.id)
    old = session.scalars(ids_of_job.order_by(Checkpoint.attempt.desc(), Checkpoint.step.desc()).offset(keep)).all()
    if old:
        session.execute(delete(Checkpoint).where(Checkpoint.id.in_(old)))


def count_kept_checkpoints(config: Mapping[str, Any]) -> int:
    """Return how many of a job's checkpoints are kept."""
    return int(config.get("checkpoints", {}).get("keep", 2))


def _store_shard(session: Session, job: Job, event: ev.Shard, attempt_path: str) -> None:
    """Finish the shard, whose files become artifacts of the job that it is of; unless the attempt has lost it."""
    number, rows = _check_count(event.number, "number", MAX_SHARDS), _check_count(event.rows, "rows", 2**31)
    shared_id = shards.get_shared_id(job)
    if not shards.finish(session, shared_id, job, number, rows):
        message = f"Shard {number} was computed by another worker meanwhile."
        lifecycle.append_event(session, job, "warning", "shard_lost", message, {"shard": number})
        return
    files = zip(
        name_files(number),
        ("application/octet-stream", "application/vnd.apache.parquet"),
        ((event.npy_sha256, event.npy_bytes), (event.parquet_sha256, event.parquet_bytes)),
        strict=True,
    )
    for name, media_type, (sha256, size) in files:
        _put_artifact(session, shared_id, ev.Artifact(name, name, media_type, sha256, size), attempt_path)
    _mark_progress(job)


def _store_artifact(session: Session, job: Job, event: ev.Artifact, attempt_path: str) -> None:
    if not (0 < len(event.name) <= 200 and text.is_printable(event.name)):
        raise BadEvent(f"an artifact's name must be 1 to 200 printable characters: {event.name[:200]!r}")
    _put_artifact(session, job.id, event, attempt_path)


def _put_artifact(session: Session, job_id: str, event: ev.Artifact, attempt_path: str) -> None:
    row = Artifact(
        job_id=job_id,
        name=event.name,
        path=_path_in_attempt(attempt_path, event.path),
        media_type=text.clean(event.media_type, 100),
        sha256=_check_sha256(event.sha256),
        size_bytes=_check_count(event.size_bytes, "size_bytes"),
        created_at=clock(session),
    )
    session.merge(row)
    session.flush()


def _store_model(session: Session, job: Job, event: ev.Model, attempt_path: str) -> None:
    """A job has one model: that of a later attempt replaces that of an earlier one."""
    model = session.scalars(select(Model).where(Model.job_id == job.id)).one_or_none()
    if model is None:
        model = Model(id=ids.new("mdl"), tenant_id=job.tenant_id, job_id=job.id, created_at=clock(session))
        session.add(model)
    model.name = job.name or f"model of {job.id}"
    model.path = _path_in_attempt(attempt_path, event.path)
    model.sha256 = _check_sha256(event.sha256)
    model.size_bytes = _check_count(event.size_bytes, "size_bytes")
    model.dim = _check_count(event.dim, "dim", 2**31)
    model.card = text.clean_json(event.card)
    session.flush()  # before the foreign key in the job's row
    job.made_model_id = model.id


def _store_log(session: Session, job: Job, event: ev.Log, attempt_path: str) -> None:
    level = event.level if event.level in ("info", "warning", "error") else "info"
    code = event.code if event.code != "status" else "log"  # the code of status changes, which only the service writes
    lifecycle.append_event(session, job, level, code, event.message, event.data)


def _store_result(session: Session, job: Job, event: ev.Result, attempt_path: str) -> None:
    job.summary = text.clean_json(event.summary)


def _ignore(session: Session, job: Job, event: ev.Event, attempt_path: str) -> None:
    """For metrics, which are stored together, and for Stopped and Failed, which the supervisor handles."""


_HANDLERS: dict[type, Callable[[Session, Job, Any, str], None]] = {
    ev.Resolved: _store_resolved,
    ev.Progress: _store_progress,
    ev.Checkpoint: _store_checkpoint,
    ev.Artifact: _store_artifact,
    ev.Shard: _store_shard,
    ev.Model: _store_model,
    ev.Log: _store_log,
    ev.Result: _store_result,
}


def _path_in_attempt(attempt_path: str, path: object) -> str:
    """Return a path of the attempt relative to the storage root. Raises BadEvent when it is outside the attempt."""
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    if not parts or parts[0] == "/" or ".." in parts or not text.is_printable(str(path)):
        raise BadEvent(f"not a path inside the attempt's folder: {path!r}")
    joined = str(PurePosixPath(attempt_path, *parts))
    if len(joined) > 400:
        raise BadEvent(f"a path is too long: {path!r}")
    return joined


def _check_sha256(value: object) -> str:
    if not (isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")):
        raise BadEvent(f"not a SHA-256 in lower-case hex: {value!r}")
    return value


def _check_count(value: object, name: str, below: int = 2**63) -> int:
    if not isinstance(value, int) or not 0 <= value < below:
        raise BadEvent(f"{name} must be an integer from 0 to {below - 1}: {value!r}")
    return value

"""Shards: parts of a job that embeds a dataset. Several attempts claim and finish them: at the job itself, and at the
internal jobs that share it (`service.embedding.sharers`).

A shard has no lease of its own: it is held for as long as the attempt that claimed it holds its job. So a heartbeat
renews all, and the end of an attempt, by whatever cause, frees all. A write of the attempt has renewed the job's lease
in the same transaction, and matches the shard only if it still names that attempt.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TypeAlias

from sqlalchemy import ColumnElement, and_, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from service.db.kinds import EMBED_SHARDS
from service.db.models import Artifact, Dataset, EmbeddingShard, Job
from service.db.session import clock, now
from service.db.statuses import HELD, JobStatus
from ssl_core.config.embedding import ShardRange, count_images, name_files, plan_shards
from ssl_core.events import Progress, Shard

_Attempt: TypeAlias = tuple[str | None, int | None]  # the id of a job, and the attempt


@dataclass(frozen=True, slots=True)
class Done:
    """All shards of a job, in order, and the seconds for which the job has run."""

    shards: tuple[Shard, ...]
    seconds: float


def prepare(session: Session, job: Job) -> None:
    """Create the shards of a job that is claimed for the first time; open those whose artifacts are not there.

    The caller has locked the job's row.
    """
    of_job = EmbeddingShard.job_id == job.id
    done = select(EmbeddingShard.number, EmbeddingShard.done_at).where(of_job)
    found = {row.number: row.done_at is not None for row in session.execute(done)}
    if not found:
        session.add_all(
            EmbeddingShard(job_id=job.id, number=shard.number, first_row=shard.first_row, rows=shard.rows)
            for shard in _plan(session, job)
        )
    names = set(session.scalars(select(Artifact.name).where(Artifact.job_id == job.id)))
    lost = [number for number, is_done in found.items() if is_done and not names.issuperset(name_files(number))]
    if lost:  # of a backup, which had no copy of their files
        session.execute(
            update(EmbeddingShard).where(of_job, EmbeddingShard.number.in_(lost)).values(done_at=None, holder_id=None)
        )
    session.flush()


def count_open(session: Session, job_id: str) -> int:
    """Return the number of the job's shards that are not done."""
    query = select(func.count()).where(EmbeddingShard.job_id == job_id, EmbeddingShard.done_at.is_(None))
    return int(session.execute(query).scalar_one())


def claim(session: Session, shared_id: str, job_id: str, attempt: int) -> ShardRange | None:
    """Claim the next shard of the job `shared_id` for a running attempt, or return None. It is one conditional UPDATE.

    A shard can be claimed when no attempt has finished it or holds it.
    """
    open_shard = aliased(EmbeddingShard)
    runs = exists().where(Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    first = (
        select(open_shard.number)
        .where(open_shard.job_id == shared_id, open_shard.done_at.is_(None), ~_is_held(open_shard), runs)
        .order_by(open_shard.number)
        .limit(1)
    )
    if session.get_bind().dialect.name != "sqlite":
        first = first.with_for_update(skip_locked=True, of=open_shard)
    statement = (
        update(EmbeddingShard)
        .where(EmbeddingShard.job_id == shared_id, EmbeddingShard.number == first.scalar_subquery())
        .where(EmbeddingShard.done_at.is_(None))
        .values(holder_id=job_id, holder_attempt=attempt, claimed_at=now())
        .returning(EmbeddingShard.number, EmbeddingShard.first_row, EmbeddingShard.rows)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    return ShardRange(*row) if row is not None else None


def finish(session: Session, shared_id: str, job: Job, number: int, rows: int) -> bool:
    """Finish a shard that the present attempt at `job` holds, and return whether it did. The lease has been renewed."""
    statement = (
        update(EmbeddingShard)
        .where(EmbeddingShard.job_id == shared_id, EmbeddingShard.number == number, EmbeddingShard.rows == rows)
        .where(EmbeddingShard.holder_id == job.id, EmbeddingShard.holder_attempt == job.attempt)
        .where(EmbeddingShard.done_at.is_(None))
        .values(done_at=now())
        .returning(EmbeddingShard.number)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).one_or_none() is not None


def find_done(session: Session, job_id: str) -> Done | None:
    """Return the job's shards once all are done."""
    query = select(EmbeddingShard).where(EmbeddingShard.job_id == job_id).order_by(EmbeddingShard.number)
    rows = session.scalars(query).all()
    if any(row.done_at is None for row in rows):
        return None
    job = session.get_one(Job, job_id)
    files = {row.name: row for row in session.scalars(select(Artifact).where(Artifact.job_id == job_id))}
    seconds = job.run_seconds + clock(session) - (job.claimed_at or 0)
    return Done(tuple(_to_event(row, *(files[name] for name in name_files(row.number))) for row in rows), seconds)


def combine_progress(session: Session, job: Job, own: Progress) -> Progress:
    """Return the progress of the job: of its own attempt, whose steps are images, and of the jobs that share it."""
    columns = (EmbeddingShard.holder_id, EmbeddingShard.holder_attempt, EmbeddingShard.rows, EmbeddingShard.done_at)
    rows = session.execute(select(*columns).where(EmbeddingShard.job_id == job.id)).all()
    finished: Counter[_Attempt] = Counter()  # images
    held: Counter[_Attempt] = Counter()
    for row in rows:
        (held if row.done_at is None else finished)[row.holder_id, row.holder_attempt] += row.rows
    rate = own.images_per_second
    steps: dict[_Attempt, int] = {(job.id, job.attempt): own.step}
    for sharer in _list_running(session, job.id):
        progress = sharer.progress or {}
        steps[sharer.id, sharer.attempt] = progress.get("step", 0)
        rate += progress.get("images_per_second", 0)
    begun = sum(min(max(0, step - finished[attempt]), held[attempt]) for attempt, step in steps.items())
    done, total = finished.total() + begun, finished.total() + held.total()
    seconds = (total - done) / max(rate, 1e-9)
    return replace(own, step=done, total_steps=total, images_per_second=rate, eta_seconds=seconds)


def get_shared_id(job: Job) -> str:
    """Return the id of the job whose shards this one computes."""
    return job.parent_id if job.kind == EMBED_SHARDS and job.parent_id is not None else job.id


def _plan(session: Session, job: Job) -> tuple[ShardRange, ...]:
    dataset = session.get_one(Dataset, job.dataset_id)
    splits = (dataset.report or {}).get("splits", {})
    return plan_shards(job.config["rows_per_shard"], count_images(splits, job.config["splits"]))


def _is_held(shard: type[EmbeddingShard]) -> ColumnElement[bool]:
    """Return the condition of a shard whose holder has a lease on its job."""
    holder = aliased(Job)
    return exists().where(
        and_(holder.id == shard.holder_id, holder.attempt == shard.holder_attempt),
        and_(holder.status.in_(HELD), holder.lease_until >= now()),
    )


def _list_running(session: Session, job_id: str) -> list[Job]:
    query = select(Job).where(Job.parent_id == job_id, Job.kind == EMBED_SHARDS, Job.status == JobStatus.RUNNING)
    return list(session.scalars(query))


def _to_event(row: EmbeddingShard, npy: Artifact, parquet: Artifact) -> Shard:
    files = (npy.sha256, npy.size_bytes, parquet.sha256, parquet.size_bytes)
    return Shard(row.number, row.first_row, row.rows, *files)

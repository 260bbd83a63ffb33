"""Usage: the jobs that a tenant has queued or running, and the bytes that it stores."""

from dataclasses import dataclass, fields

from sqlalchemy import BigInteger, cast, func, or_, select
from sqlalchemy.orm import Session

from service.db.kinds import EMBED_SHARDS, IMPORT
from service.db.models import Artifact, Checkpoint, Dataset, Job, Model, VectorIndex
from service.db.statuses import HELD, TERMINAL, DatasetStatus, JobStatus

PENDING = (JobStatus.WAITING, JobStatus.QUEUED, JobStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class JobCounts:
    """A tenant's jobs in one queue. `queued` counts those that wait for another job too."""

    queued: int
    running: int


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """The bytes that a tenant stores. Files that datasets share count once."""

    uploads: int  # that wait for ingestion or import
    datasets: int
    models: int
    checkpoints: int
    artifacts: int
    indexes: int

    @property
    def total(self) -> int:
        return sum(int(getattr(self, field.name)) for field in fields(self))


def count_jobs(session: Session, tenant_id: str, queue: str) -> JobCounts:
    """Return the tenant's jobs in the queue that have not ended; those that share another one count while they run."""
    counted = or_(Job.kind != EMBED_SHARDS, Job.status.in_(HELD))
    query = select(Job.status, func.count()).where(
        Job.queue == queue, Job.status.in_((*PENDING, *HELD)), Job.tenant_id == tenant_id, counted
    )
    found = {row[0]: row[1] for row in session.execute(query.group_by(Job.status))}
    return JobCounts(sum(found.get(name, 0) for name in PENDING), sum(found.get(name, 0) for name in HELD))


def measure_bytes(session: Session, tenant_id: str) -> StoredBytes:
    """Return the bytes that the tenant stores."""
    of_tenant = Job.tenant_id == tenant_id
    kept = (Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None))
    received = select(func.max(Dataset.size_bytes).label("size")).where(
        *kept, Dataset.status == DatasetStatus.VALIDATING
    )
    packed = select(func.max(func.coalesce(Dataset.stored_bytes, Dataset.size_bytes)).label("size")).where(
        *kept, Dataset.path.is_not(None)
    )
    imports = select(func.sum(cast(Job.config["upload"]["size_bytes"].as_string(), BigInteger))).where(
        of_tenant, Job.kind == IMPORT, Job.status.not_in(TERMINAL)
    )
    uploads, datasets = received.group_by(Dataset.sha256).subquery(), packed.group_by(Dataset.path).subquery()
    queries = (
        select(func.sum(uploads.c.size)),
        imports,
        select(func.sum(datasets.c.size)),
        select(func.sum(Model.size_bytes)).where(Model.tenant_id == tenant_id, Model.deleted_at.is_(None)),
        select(func.sum(Checkpoint.size_bytes)).join(Job, Job.id == Checkpoint.job_id).where(of_tenant),
        select(func.sum(Artifact.size_bytes)).join(Job, Job.id == Artifact.job_id).where(of_tenant),
        select(func.sum(cast(VectorIndex.report["bytes"].as_string(), BigInteger))).where(
            VectorIndex.tenant_id == tenant_id, VectorIndex.deleted_at.is_(None)
        ),
    )
    waiting, importing, *stored = (int(session.execute(query).scalar_one() or 0) for query in queries)
    return StoredBytes(waiting + importing, *stored)

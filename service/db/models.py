"""Database models (SQLAlchemy), for SQLite and PostgreSQL.

Times are Unix seconds by the database's clock (`service.db.session.now`), so that a lease is compared with the clock
that set it. JSON columns hold what the API returns.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, MetaData, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = dict[str, Any]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: String(64), float: Double(), Json: JSON(none_as_null=True)}  # noqa: RUF012


class Tenant(Base):
    """An owner of keys, datasets, jobs and models."""

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[float]


class Key(Base):
    """A bearer key, stored as its SHA-256. That of an operator also reads the metrics of the whole service."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(server_default="owner")  # owner | operator
    scopes: Mapped[str] = mapped_column(server_default="read embed train admin")  # separated by spaces
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]  # to within a minute
    revoked_at: Mapped[float | None]


class SignInToken(Base):
    """A one-time token, stored as its SHA-256, that opens a browser's session with what a key may do."""

    __tablename__ = "sign_in_tokens"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"), index=True)
    expires_at: Mapped[float]


class Dataset(Base):
    """An uploaded dataset. `path` (relative to the storage root) is set when it is ready."""

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_tenant_id_sha256", "tenant_id", "sha256"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str]  # a DatasetStatus (service.db.statuses)
    on_bad_file: Mapped[str]  # reject | skip
    reading: Mapped[str | None]  # other fields of ssl_core.config.Reading, as JSON; None: read before there were any
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str | None] = mapped_column(String(400))
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the files at `path`
    report: Mapped[Json | None]
    error: Mapped[Json | None]
    created_at: Mapped[float]
    ready_at: Mapped[float | None]
    deleted_at: Mapped[float | None]


class Model(Base):
    """A saved model: a folder (relative to the storage root) with weights, heads and card."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    job_id: Mapped[str] = mapped_column(String(64), unique=True)  # no foreign key: jobs refer to this table
    name: Mapped[str] = mapped_column(String(200))
    path: Mapped[str] = mapped_column(String(400))
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    dim: Mapped[int]
    card: Mapped[Json]  # config, preprocessing, metrics, lineage, versions; empty of a deleted model
    created_at: Mapped[float]
    deleted_at: Mapped[float | None]  # the row stays: jobs refer to it


class Alias(Base):
    """A name that an owner gives to a model, and may move to another."""

    __tablename__ = "aliases"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    created_at: Mapped[float]
    moved_at: Mapped[float]


class VectorIndex(Base):
    """An index of the embeddings that a job has left. `path` (relative to the storage root) is set when it is ready."""

    __tablename__ = "indexes"
    __table_args__ = (Index("ix_indexes_tenant_id_id", "tenant_id", "id"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str | None] = mapped_column(String(200))
    status: Mapped[str]  # an IndexStatus (service.db.statuses)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))  # that computed the embeddings
    build_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)  # that builds the index
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    layer: Mapped[str] = mapped_column(String(100))
    user_metadata: Mapped[Json]
    path: Mapped[str | None] = mapped_column(String(400))
    report: Mapped[Json | None]
    error: Mapped[Json | None]
    created_at: Mapped[float]
    ready_at: Mapped[float | None]
    deleted_at: Mapped[float | None]


class Job(Base):
    """A submitted job. A queued row is its own outbox; `attempt` fences every write of a worker.

    Training and evaluation jobs are on queue `train`, those of the internal kinds (`service.db.kinds`) on queue `data`.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(
            "ix_jobs_queue_status_tenant_id_priority_id", "queue", "status", "tenant_id", text("priority DESC"), "id"
        ),
        Index("ix_jobs_tenant_id_queue_claimed_at", "tenant_id", "queue", "claimed_at"),
        Index("ix_jobs_tenant_id_id", "tenant_id", "id"),
        # All that `service.monitoring.counts` reads: the rows are wide.
        Index(
            "ix_jobs_tenant_id_kind_status_attempt_queued_at_deleted_at",
            *("tenant_id", "kind", "status", "attempt", "queued_at", "deleted_at"),
        ),
        Index("ix_jobs_status_lease_until", "status", "lease_until"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str]
    queue: Mapped[str]  # train | data
    name: Mapped[str | None] = mapped_column(String(200))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)  # null for kind `import`
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))  # the input model
    parent_id: Mapped[str | None] = mapped_column(
        ForeignKey("jobs.id"), index=True
    )  # the job that makes the input model; of an internal job that shares another one, that job
    config: Mapped[Json]
    resolved: Mapped[Json | None]
    user_metadata: Mapped[Json]
    priority: Mapped[int]
    status: Mapped[str]  # a JobStatus (service.db.statuses)
    status_detail: Mapped[str | None] = mapped_column(Text)
    max_runtime: Mapped[int | None]  # in seconds
    run_seconds: Mapped[float] = mapped_column(default=0.0, server_default="0")  # of attempts that have ended
    attempt: Mapped[int] = mapped_column(default=0)
    fruitless: Mapped[int] = mapped_column(default=0)  # attempts in a row without progress
    attempt_progress: Mapped[bool] = mapped_column(default=False)  # of the current attempt
    lease_until: Mapped[float | None]
    worker: Mapped[str | None] = mapped_column(String(200))
    progress: Mapped[Json | None]
    summary: Mapped[Json | None]
    error: Mapped[Json | None]
    made_model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))  # `model_id` in the API
    last_event: Mapped[int] = mapped_column(default=0)
    last_point: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[float]
    queued_at: Mapped[float | None]  # the last time; of the current status when that is `queued`
    claimed_at: Mapped[float | None]  # the last attempt
    started_at: Mapped[float | None]  # the first attempt
    finished_at: Mapped[float | None]
    deleted_at: Mapped[float | None]  # the row stays: other jobs refer to it, and it is counted
    sweep_id: Mapped[str | None] = mapped_column(index=True)  # no foreign key: sweeps refer to this table
    freed_at: Mapped[float | None] = mapped_column(
        index=True
    )  # rows were deleted; the keeper has to remove their files


class Sweep(Base):
    """A sweep: trials that are submitted as jobs, at most `parallel` at a time, by the keeper."""

    __tablename__ = "sweeps"
    __table_args__ = (Index("ix_sweeps_tenant_id_id", "tenant_id", "id"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str | None] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(index=True)  # a SweepStatus (service.db.statuses)
    status_detail: Mapped[str] = mapped_column(Text)
    kind: Mapped[str]  # of the jobs
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"), index=True)  # the input model
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)  # the job that makes it
    config: Mapped[Json]
    space: Mapped[Json]
    search: Mapped[Json]  # search, trials, seed
    parallel: Mapped[int]
    metric: Mapped[str] = mapped_column(String(100))
    goal: Mapped[str]  # maximize | minimize
    pruner: Mapped[Json | None]
    priority: Mapped[int]
    max_runtime: Mapped[int | None]
    user_metadata: Mapped[Json]
    error: Mapped[Json | None]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    deleted_at: Mapped[float | None]


class Trial(Base):
    """A trial of a sweep: the values that it takes, and the job that it is once it was started."""

    __tablename__ = "trials"
    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 0
    params: Mapped[Json]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    reports: Mapped[list[list[Any]]] = mapped_column(JSON)  # [epoch, value], as the pruner was shown them
    pruner_state: Mapped[Json | None]
    pruned_at: Mapped[float | None]
    retried_at: Mapped[float | None]  # by a client: the pruner does not stop it again
    value: Mapped[float | None]  # the last one of the metric, once the job has ended
    error: Mapped[Json | None]  # why it could not be submitted
    ended_at: Mapped[float | None]


class Retried(Base):
    """How many jobs of an owner had ended with a status when they were retried, so that counts of ends do not fall."""

    __tablename__ = "retried"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(primary_key=True)  # failed | cancelled
    jobs: Mapped[int]
    attempts: Mapped[int]  # of these jobs, those that have had any


class JobEvent(Base):
    """A status change (`code` = "status", `data.status`) or a log line, in ascending `seq`."""

    __tablename__ = "job_events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[float]
    attempt: Mapped[int]
    level: Mapped[str]  # info | warning | error
    code: Mapped[str]
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[Json]


class Checkpoint(Base):
    """A checkpoint file; the next attempt resumes from the one with the highest step."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "attempt", "step"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    attempt: Mapped[int]
    step: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[float]
    path: Mapped[str] = mapped_column(String(400))  # relative to the storage root
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[Json]
    created_at: Mapped[float]


class Artifact(Base):
    """A file that a job left for the user; a later attempt's replaces an earlier one's of the same name."""

    __tablename__ = "artifacts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    path: Mapped[str] = mapped_column(String(400))  # relative to the storage root
    media_type: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float]


class EmbeddingShard(Base):
    """A shard of a job that embeds a dataset. It is held by one attempt at that job, or at one that shares it, for as
    long as the attempt holds its own lease; the fenced write of its two artifacts sets `done_at`.
    """

    __tablename__ = "embedding_shards"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    first_row: Mapped[int] = mapped_column(BigInteger)  # of the embedded images
    rows: Mapped[int]
    holder_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    holder_attempt: Mapped[int | None]
    claimed_at: Mapped[float | None]
    done_at: Mapped[float | None]


class Series(Base):
    """One named metric of a job. A point whose step is not above `last_step` is a replay and is dropped."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("job_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))  # null: the keeper deletes it with its points
    name: Mapped[str] = mapped_column(String(100))
    points: Mapped[int] = mapped_column(BigInteger)
    first_seq: Mapped[int] = mapped_column(BigInteger)
    last_seq: Mapped[int] = mapped_column(BigInteger)
    last_step: Mapped[int] = mapped_column(BigInteger)


class Point(Base):
    """A metric's value at a step. `seq` counts all points of the job, so it is the cursor that clients poll with."""

    __tablename__ = "points"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[float]
    time: Mapped[float]
    value: Mapped[float | None]


class Idempotency(Base):
    """The response for an Idempotency-Key, written in the transaction of the request."""

    __tablename__ = "idempotency"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str]  # SHA-256 of method, path and body
    status: Mapped[int]
    location: Mapped[str | None] = mapped_column(String(200))
    body: Mapped[Json]
    created_at: Mapped[float]


class AuditEntry(Base):
    """What was done with a key, and when. A trigger refuses updates; entries are deleted when they are old."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_tenant_id_id", "tenant_id", "id"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    at: Mapped[float] = mapped_column(index=True)
    action: Mapped[str]  # an Action (service.audit.actions)
    target: Mapped[str] = mapped_column(String(300))  # the id of what was made, deleted or downloaded
    key_id: Mapped[str | None]  # null for a command on the server
    key_name: Mapped[str | None] = mapped_column(String(200))
    address: Mapped[str | None]
    request_id: Mapped[str | None] = mapped_column(String(128))
    detail: Mapped[Json]


class Worker(Base):
    """The last heartbeat of a worker process, for `/health/ready`."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    queue: Mapped[str]
    seen_at: Mapped[float]

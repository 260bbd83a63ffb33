"""Settings: every `TWOVIEWS_*` variable, in one class, checked at start."""

from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a process of the service needs to know. Times are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(env_prefix="TWOVIEWS_", extra="ignore", frozen=True)

    data_dir: Path = Field(
        Path("twoviews-data"), description="Datasets, checkpoints, models; the database too unless told otherwise."
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL, sqlite or postgresql+psycopg; empty: SQLite in `data_dir`."
    )
    broker_url: str = Field("redis://127.0.0.1:6379/0", description="The Celery broker: it only carries doorbells.")
    encoder_url: str = Field(
        "", description="http://host:port of the encoder; empty: the Unix socket `data_dir`/encoder.sock."
    )
    encoder_token: SecretStr = Field(SecretStr(""), description="Shared by API and encoder when they talk over TCP.")

    lease_seconds: float = Field(60, gt=0)
    heartbeat_seconds: float = Field(10, gt=0)
    grace_seconds: float = Field(30, gt=0, description="From SIGTERM to SIGKILL of a trainer.")
    flush_seconds: float = Field(0.5, gt=0, description="The longest that an event waits before it is stored.")
    ring_seconds: float = Field(2, gt=0, description="How often the keeper rings for queued jobs.")
    reap_seconds: float = Field(15, gt=0, description="How often the keeper takes back expired leases.")
    sweep_seconds: float = Field(3600, gt=0, description="How often the keeper removes leftovers.")
    leftover_seconds: float = Field(86_400, gt=0, description="Age at which an unclaimed temporary file is a leftover.")
    max_fruitless_attempts: int = Field(3, ge=1, description="So many in a row without progress fail the job.")
    retry_seconds: float = Field(
        10, ge=0, description="Before a job is tried again after an attempt without progress; doubled each time."
    )
    worker_seen_seconds: float = Field(60, gt=0, description="A worker seen within this time makes the service ready.")
    trainer_command: list[str] = Field(
        [], description="Runs in place of `python -m ssl_core`; for tests and for trainers of your own."
    )

    max_upload_bytes: int = Field(64 * 2**30, gt=0)
    max_body_bytes: int = Field(2**20, gt=0, description="Of a JSON request other than /embed.")
    max_weights_bytes: int = Field(4 * 2**30, gt=0, description="Of a file of weights to be imported.")
    max_unpacked_bytes: int = Field(256 * 2**30, gt=0)
    max_unpack_ratio: float = Field(200, gt=1, description="Unpacked size over packed size that is taken for a bomb.")
    max_images: int = Field(10_000_000, gt=0)
    max_image_bytes: int = Field(64 * 2**20, gt=0)
    max_image_pixels: int = Field(100_000_000, gt=0)
    ingest_memory_bytes: int = Field(8 * 2**30, gt=0, description="Address space of the ingesting child.")
    ingest_seconds: float = Field(6 * 3600, gt=0, description="CPU time of the ingesting child.")
    import_memory_bytes: int = Field(
        16 * 2**30, gt=0, description="Address space of the importing child, beyond what torch takes."
    )
    import_seconds: float = Field(1800, gt=0, description="CPU time of the importing child.")
    embed_max_images: int = Field(256, ge=1)
    embed_queue_images: int = Field(
        1024, ge=1, description="Images that may wait in the encoder; beyond it answers 503."
    )
    embed_max_batch: int = Field(64, ge=1)
    embed_wait_ms: float = Field(4, ge=0, description="How long a batch waits for company.")
    embed_precision: Literal["fp32", "bf16"] = Field("fp32", description="Of the encoder's forward passes.")
    embed_threads: int = Field(0, ge=0, description="Of a forward pass on the CPU; 0: by the number of cores.")
    embed_models: int = Field(4, ge=1, description="Models kept loaded, by least recent use.")
    embed_idle_seconds: float = Field(600, gt=0, description="A model unused for so long is unloaded.")
    embed_max_body_bytes: int = Field(2**28, gt=0, description="Of a request to /embed, as it is sent.")
    embed_held_bytes: int = Field(
        2**30, gt=0, description="Of all such requests together, while they are answered; beyond it answers 503."
    )
    embed_answer_seconds: float = Field(120, gt=0, description="The longest that the API waits for the encoder.")
    idempotency_hours: float = Field(24, gt=0, description="How long an Idempotency-Key is remembered.")
    long_poll_seconds: float = Field(30, gt=0, description="The longest `wait=`.")

    @model_validator(mode="after")
    def _times_agree(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("TWOVIEWS_LEASE_SECONDS must be at least twice TWOVIEWS_HEARTBEAT_SECONDS")
        return self

    @cached_property
    def database(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'twoviews.db'}"

"""Settings of the service, from the `TWOVIEWS_*` environment variables, validated at start."""

import difflib
import logging
import os
import sys
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "TWOVIEWS_"
# Variables of this prefix that are no settings of the service: of the client, `twoviews up` and compose.
_OTHERS = ("URL", "KEY", "HUNG_SECONDS", "PORT", "POSTGRES_PASSWORD", "TORCH_OPTIONS")
_log = logging.getLogger(__name__)


class Settings(BaseSettings):
    """Settings of every process of the service. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    data_dir: Path = Field(
        Path("twoviews-data"),
        description="Datasets, checkpoints, models; the database too unless `database_url` is set.",
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL, sqlite or postgresql+psycopg; empty: SQLite in `data_dir`."
    )
    broker_url: str = Field("redis://127.0.0.1:6379/0", description="URL of the Celery broker.")
    encoder_url: str = Field(
        "", description="http://host:port of the encoder; empty: the Unix socket `data_dir`/encoder.sock."
    )
    encoder_token: SecretStr = Field(SecretStr(""), description="Shared by API and encoder over TCP.")

    lease_seconds: float = Field(60, gt=0)
    heartbeat_seconds: float = Field(10, gt=0)
    grace_seconds: float = Field(30, gt=0, description="From SIGTERM to SIGKILL of a trainer.")
    flush_seconds: float = Field(0.5, gt=0, description="The maximum time before an event is stored.")
    ring_seconds: float = Field(2, gt=0, description="How often the keeper rings for queued jobs.")
    reap_seconds: float = Field(15, gt=0, description="How often the keeper reclaims jobs with expired leases.")
    sweep_seconds: float = Field(3600, gt=0, description="How often the keeper removes unused files.")
    beat_file: Path | None = Field(None, description="The keeper writes it at each round, to show that it runs.")
    leftover_seconds: float = Field(86_400, gt=0, description="Age at which an unused file is removed.")
    max_fruitless_attempts: int = Field(
        3, ge=1, description="This many attempts in a row without progress fail the job."
    )
    retry_seconds: float = Field(
        10, ge=0, description="Delay before the retry of a job after an attempt without progress; doubled each time."
    )
    worker_seen_seconds: float = Field(
        60, gt=0, description="The service is ready if a worker was seen within this time."
    )
    trainer_command: list[str] = Field(
        [], description="Replaces `python -m ssl_core run`; for tests and custom trainers."
    )

    http_connections: int = Field(
        1000, ge=1, description="Open connections of the API, fewer if the process may open fewer files."
    )
    http_connections_per_address: int = Field(250, ge=1, description="Of one address that is no trusted proxy.")
    http_head_seconds: float = Field(20, gt=0, description="From a connection, or a request's first byte, to its head.")
    http_body_seconds: float = Field(30, gt=0, description="Without a byte of a body, or of a response that is read.")
    http_idle_seconds: float = Field(30, gt=0, description="Between two requests of a connection.")
    trusted_proxies: str = Field(
        "127.0.0.1,::1", description="Addresses and networks whose X-Forwarded-For is trusted; `*` for all."
    )
    wrong_keys_per_minute: int = Field(
        30, ge=1, description="Of one address; beyond it keys that were not valid before are answered with 429."
    )

    max_upload_bytes: int = Field(64 * 2**30, gt=0)
    max_body_bytes: int = Field(2**20, gt=0, description="Of a JSON request other than /embed.")
    max_weights_bytes: int = Field(4 * 2**30, gt=0, description="Of an uploaded file of weights.")
    max_unpacked_bytes: int = Field(256 * 2**30, gt=0)
    max_unpack_ratio: float = Field(
        200,
        gt=1,
        description="Maximum ratio of unpacked bytes, and of pixels, to packed bytes; beyond it an upload is refused.",
    )
    max_images: int = Field(10_000_000, gt=0)
    max_image_bytes: int = Field(64 * 2**20, gt=0)
    max_image_pixels: int = Field(100_000_000, gt=0)
    ingest_memory_bytes: int = Field(8 * 2**30, gt=0, description="Address space of the ingestion process.")
    ingest_seconds: float = Field(6 * 3600, gt=0, description="CPU time of the ingestion process.")
    import_memory_bytes: int = Field(
        16 * 2**30, gt=0, description="Address space of the import process, in addition to that of torch."
    )
    import_seconds: float = Field(1800, gt=0, description="CPU time of the import process.")
    embed_max_images: int = Field(256, ge=1)
    embed_queue_images: int = Field(
        1024, ge=1, description="Maximum length of the encoder's queue, in images; beyond it the response is 503."
    )
    embed_max_pixels: int = Field(
        2_000_000_000, gt=0, description="Of all images of a request to /embed, by their headers."
    )
    embed_decode_pixels: int = Field(
        100_000_000,
        gt=0,
        description="Of the images above 16 megapixels that the encoder decodes at a time; one alone may have more.",
    )
    embed_max_batch: int = Field(64, ge=1)
    embed_wait_ms: float = Field(4, ge=0, description="How long a batch waits for more images.")
    embed_precision: Literal["fp32", "bf16"] = Field("fp32", description="Of the encoder's forward passes.")
    embed_threads: int = Field(0, ge=0, description="Threads of a forward pass on the CPU; 0: by the number of cores.")
    embed_models: int = Field(4, ge=1, description="Models kept loaded; the least recently used is evicted.")
    embed_idle_seconds: float = Field(600, gt=0, description="A model unused for this time is unloaded.")
    embed_max_body_bytes: int = Field(2**28, gt=0, description="Of the body of a request to /embed.")
    embed_held_bytes: int = Field(
        2**30,
        gt=0,
        description="Held by all concurrent requests to /embed, three quarters of it by one owner's; beyond it the "
        "response is 503.",
    )
    embed_answer_seconds: float = Field(120, gt=0, description="Timeout of the API for the encoder.")
    quota_queued_jobs: int = Field(
        0, ge=0, description="Jobs of an owner that wait in a queue (training, or uploads and imports); 0: no limit."
    )
    quota_running_jobs: int = Field(
        0,
        ge=0,
        description="Jobs of an owner that run at a time, of each queue; others stay queued. 0: no limit.",
    )
    quota_bytes: int = Field(
        0,
        ge=0,
        description="Bytes of an owner's uploads, datasets, models, checkpoints and artifacts; 0: no limit.",
    )
    quota_requests_per_minute: int = Field(
        0, ge=0, description="Requests of an owner to one API process, in a minute; 0: no limit."
    )
    idempotency_hours: float = Field(24, gt=0, description="How long the response for an Idempotency-Key is stored.")
    long_poll_seconds: float = Field(30, gt=0, description="The maximum of `wait=`.")
    long_polls_per_key: int = Field(
        200, ge=1, description="Requests of one key that wait for metrics at a time; beyond it the response is 429."
    )

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:", "postgresql+psycopg:")):
            raise ValueError("must begin with sqlite: or postgresql+psycopg:")
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, networks: str) -> str:
        for item in networks.split(","):
            if item.strip() not in ("", "*"):
                ip_network(item.strip(), strict=False)
        return networks

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("TWOVIEWS_LEASE_SECONDS must be at least twice TWOVIEWS_HEARTBEAT_SECONDS")
        return self

    @cached_property
    def database(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{quote(str(self.data_dir.absolute() / 'twoviews.db'))}"


def load_settings() -> Settings:
    """Return the settings of the environment at the start of a process.

    Logs a warning for each unknown variable. Exits with a sentence for each invalid one.
    """
    for name in os.environ:
        _warn_if_unknown(name)
    try:
        return Settings()
    except ValidationError as error:
        sentences = (
            f"{_to_variable(item['loc'])}{item['msg'].removeprefix('Value error, ')}." for item in error.errors()
        )
        sys.exit("\n".join(sentences))


def _to_variable(location: tuple[int | str, ...]) -> str:
    return f"{PREFIX}{str(location[0]).upper()}: " if location else ""


def _warn_if_unknown(name: str) -> None:
    short = name.removeprefix(PREFIX)
    known = [field.upper() for field in Settings.model_fields]
    if short == name or short in known or short in _OTHERS or short.startswith("TEST_"):
        return
    close = difflib.get_close_matches(short, known, n=1)
    _log.warning("There is no setting %s%s", name, f"; did you mean {PREFIX}{close[0]}?" if close else ".")

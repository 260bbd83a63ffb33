"""Settings of the service, from the `TWOVIEWS_*` environment variables, validated at start."""

import difflib
import logging
import os
import sys
from collections.abc import Callable
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Self
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings.audit import AuditSettings
from service.settings.embed import EmbedSettings
from service.settings.http import HttpSettings
from service.settings.jobs import JobSettings
from service.settings.logs import LogSettings
from service.settings.quotas import QuotaSettings
from service.settings.retention import RetentionSettings
from service.settings.uploads import UploadSettings

PREFIX = "TWOVIEWS_"
# Variables of this prefix that are no settings of the service: of the client, `twoviews up` and compose.
_OTHERS = ("URL", "KEY", "HUNG_SECONDS", "PORT", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD", "TORCH_OPTIONS")
_log = logging.getLogger(__name__)


class Settings(
    JobSettings,
    HttpSettings,
    UploadSettings,
    EmbedSettings,
    QuotaSettings,
    RetentionSettings,
    LogSettings,
    AuditSettings,
    BaseSettings,
):
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


def load_settings(configure_logs: Callable[[Settings], None] | None = None) -> Settings:
    """Return the settings of the environment at the start of a process.

    Logs a warning for each unknown variable, after `configure_logs`. Exits with a sentence for each invalid one.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        _warn_of_unknown()
        sentences = (
            f"{_to_variable(item['loc'])}{item['msg'].removeprefix('Value error, ')}." for item in error.errors()
        )
        sys.exit("\n".join(sentences))
    if configure_logs is not None:
        configure_logs(settings)
    _warn_of_unknown()
    return settings


def _to_variable(location: tuple[int | str, ...]) -> str:
    return f"{PREFIX}{str(location[0]).upper()}: " if location else ""


def _warn_of_unknown() -> None:
    for name in os.environ:
        _warn_if_unknown(name)


def _warn_if_unknown(name: str) -> None:
    short = name.removeprefix(PREFIX)
    known = [field.upper() for field in Settings.model_fields]
    if short == name or short in known or short in _OTHERS or short.startswith("TEST_"):
        return
    close = difflib.get_close_matches(short, known, n=1)
    _log.warning("There is no setting %s%s", name, f"; did you mean {PREFIX}{close[0]}?" if close else ".")

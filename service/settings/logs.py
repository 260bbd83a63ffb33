"""Settings of logs."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field


class LogSettings(BaseModel):
    """Format, level and files of logs, and the access log."""

    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, else one JSON object in each line."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The lowest level logged.")
    log_file: Path | None = Field(
        None, description="Replaces stderr; opened again when it has been renamed. Each process needs its own."
    )
    log_bytes: int = Field(
        20 * 2**20, ge=1024, description="Size at which `twoviews up` begins a new file for a process."
    )
    log_files: int = Field(5, ge=1, description="Older files that `twoviews up` keeps for each process.")
    access_log: bool = Field(True, description="Whether the API logs each request.")

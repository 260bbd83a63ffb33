"""Settings of jobs and of the processes that run them."""

from pathlib import Path

from pydantic import BaseModel, Field


class JobSettings(BaseModel):
    """Leases, heartbeats, retries, the keeper."""

    lease_seconds: float = Field(60, gt=0)
    heartbeat_seconds: float = Field(10, gt=0)
    grace_seconds: float = Field(30, gt=0, description="From SIGTERM to SIGKILL of a trainer.")
    flush_seconds: float = Field(0.5, gt=0, description="The maximum time before an event is stored.")
    ring_seconds: float = Field(2, gt=0, description="How often the keeper rings for queued jobs.")
    reap_seconds: float = Field(15, gt=0, description="How often the keeper reclaims jobs with expired leases.")
    sweep_seconds: float = Field(3600, gt=0, description="How often the keeper removes unused files.")
    beat_file: Path | None = Field(None, description="The keeper writes it at each round, to show that it runs.")
    leftover_seconds: float = Field(86_400, gt=0, description="Age at which an unused file is removed.")
    cleanup_seconds: float = Field(
        60, gt=0, description="How often the keeper removes files of deleted and failed datasets, and unused uploads."
    )
    cleanup_age_seconds: float = Field(
        300, gt=0, description="Time since the last write to such a file before it is removed."
    )
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

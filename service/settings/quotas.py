"""Settings of quotas."""

from pydantic import BaseModel, Field


class QuotaSettings(BaseModel):
    """What one owner may use."""

    quota_queued_jobs: int = Field(
        0,
        ge=0,
        description="Jobs of an owner that wait in a queue (training, or uploads and others); 0: no limit.",
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

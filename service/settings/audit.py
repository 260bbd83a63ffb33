"""Settings of the audit trail."""

from pydantic import BaseModel, Field


class AuditSettings(BaseModel):
    """What is recorded of the use of keys, and for how long."""

    audit_days: float = Field(365, ge=1, description="How long an entry of the audit trail is kept.")
    key_use_seconds: float = Field(
        10, gt=0, description="How often the API stores last uses of keys, refusals and downloads."
    )

"""Settings of retention."""

from typing import Annotated

from pydantic import BaseModel, Field

Days = Annotated[float | None, Field(gt=0, le=36_500)]


class RetentionSettings(BaseModel):
    """For how many days the keeper leaves what jobs and uploads have left; not set: for ever."""

    retention_checkpoint_days: Days = Field(
        None, description="Checkpoints of a job that has succeeded, since its end; its model stays."
    )
    retention_failed_checkpoint_days: Days = Field(
        None,
        description="Checkpoints of a job that has failed or was cancelled, since its end; a retry then begins at the "
        "start.",
    )
    retention_artifact_days: Days = Field(None, description="Artifacts of a job that has ended, since its end.")
    retention_failed_upload_days: Days = Field(
        None, description="Datasets whose upload could not be ingested, since the upload."
    )

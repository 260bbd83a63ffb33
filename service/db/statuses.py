"""Statuses of jobs, datasets, indexes and sweeps, as the database stores them and the API shows them."""

from enum import StrEnum


class _Status(StrEnum):
    """A status with a sentence that describes it."""

    description: str

    def __new__(cls, value: str, description: str) -> "_Status":
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    @classmethod
    def describe(cls) -> str:
        """Return every status with its sentence, for the API's documentation."""
        return " ".join(f"`{status.value}`: {status.description}" for status in cls)


class JobStatus(_Status):
    """The status of a job; `service.lifecycle` has the transitions."""

    WAITING = "waiting", "The job that makes its model has not ended."
    QUEUED = "queued", "It can be claimed by a worker."
    RUNNING = "running", "A worker runs an attempt."
    CANCELLING = "cancelling", "Cancellation was requested; the worker stops the attempt."
    PAUSING = "pausing", "A pause was requested; the worker stops the attempt after a checkpoint."
    PAUSED = "paused", "It is not run until it is resumed."
    SUCCEEDED = "succeeded", "It ended with a result."
    FAILED = "failed", "It ended with an error."
    CANCELLED = "cancelled", "It ended because it was cancelled."


TERMINAL = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
HELD = (JobStatus.RUNNING, JobStatus.CANCELLING, JobStatus.PAUSING)  # a worker holds a lease on the job


class DatasetStatus(_Status):
    """The status of a dataset."""

    VALIDATING = "validating", "Its upload waits for ingestion, or is being ingested."
    READY = "ready", "Jobs can use it."
    FAILED = "failed", "Its upload could not be ingested; `error` has the reasons."


class IndexStatus(_Status):
    """The status of an index."""

    BUILDING = "building", "It waits for a worker, or is being built."
    READY = "ready", "It can be searched."
    FAILED = "failed", "It could not be built; `error` has the reason."


class SweepStatus(_Status):
    """The status of a sweep."""

    RUNNING = "running", "Its trials are run, some at a time."
    PAUSED = "paused", "No trial is run until it is resumed."
    SUCCEEDED = "succeeded", "Every trial has ended, and `best` is the best of them."
    FAILED = "failed", "Every trial has ended, and none succeeded with a value of the metric."
    CANCELLED = "cancelled", "It was cancelled, and with it the trials that had not ended."


ACTIVE = (SweepStatus.RUNNING, SweepStatus.PAUSED)

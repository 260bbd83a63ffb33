"""Twoviews: the Python client of the service, and the `twoviews` command-line interface."""

from importlib.metadata import version

from twoviews.client import Client
from twoviews.errors import (
    ApiError,
    CannotReach,
    CannotWrite,
    Corrupt,
    DatasetFailed,
    IndexFailed,
    JobFailed,
    NoCredentials,
    SweepFailed,
    TwoviewsError,
    WaitTimeout,
)
from twoviews.values import Dataset, Index, Job, JobStatus, Key, Metrics, Model, Series, Sweep, Update

__all__ = [
    "ApiError",
    "CannotReach",
    "CannotWrite",
    "Client",
    "Corrupt",
    "Dataset",
    "DatasetFailed",
    "Index",
    "IndexFailed",
    "Job",
    "JobFailed",
    "JobStatus",
    "Key",
    "Metrics",
    "Model",
    "NoCredentials",
    "Series",
    "Sweep",
    "SweepFailed",
    "TwoviewsError",
    "Update",
    "WaitTimeout",
    "__version__",
]
__version__ = version("twoviews")

"""Twoviews: the Python client of the service, and the `twoviews` command."""

from twoviews.client import Client
from twoviews.errors import (
    ApiError,
    CannotReach,
    Corrupt,
    DatasetFailed,
    JobFailed,
    NoCredentials,
    TwoviewsError,
    Waited,
)
from twoviews.values import Dataset, Job, Key, Metrics, Model, Series, Update

__all__ = [
    "ApiError",
    "CannotReach",
    "Client",
    "Corrupt",
    "Dataset",
    "DatasetFailed",
    "Job",
    "JobFailed",
    "Key",
    "Metrics",
    "Model",
    "NoCredentials",
    "Series",
    "TwoviewsError",
    "Update",
    "Waited",
]

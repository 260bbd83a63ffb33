"""Errors: the exceptions of the client.

TwoviewsError ─┬─ ApiError           the service rejected the request
               ├─ CannotReach        no response after all retries
               ├─ NoCredentials      no URL or key is configured
               ├─ JobFailed          a job failed or was cancelled
               ├─ DatasetFailed      an upload could not be read
               ├─ WaitTimeout        a wait exceeded its timeout
               ├─ CannotWrite        a download cannot be written (also an OSError)
               └─ Corrupt            a download does not have the expected SHA-256
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TwoviewsError(Exception):
    """Base class; the message is one sentence for the user."""


class ApiError(TwoviewsError):
    """The service rejected the request. `code` is stable; `errors` are `{pointer, code, detail}`, one per fault."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        request_id: str | None = None,
    ) -> None:
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.request_id = list(errors), request_id
        super().__init__(detail)


class CannotReach(TwoviewsError):
    """The service does not answer."""


class NoCredentials(TwoviewsError):
    """No service is configured: start one with `twoviews up`, or set TWOVIEWS_URL and TWOVIEWS_KEY."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or str(type(self).__doc__))


class JobFailed(TwoviewsError):
    """A job failed or was cancelled."""

    def __init__(self, job_id: str, status: str, error: Mapping[str, Any] | None) -> None:
        self.job_id, self.status, self.error = job_id, status, dict(error or {})
        reason = self.error.get("detail") or self.error.get("message") or ""
        super().__init__(f"The job {job_id} {'was cancelled' if status == 'cancelled' else status}. {reason}".strip())


class DatasetFailed(TwoviewsError):
    """An upload could not be read."""

    def __init__(self, dataset_id: str, error: Mapping[str, Any] | None) -> None:
        self.dataset_id, self.error = dataset_id, dict(error or {})
        reason = self.error.get("detail") or self.error.get("message") or ""
        super().__init__(f"The dataset {dataset_id} could not be read. {reason}".strip())


class IndexFailed(TwoviewsError):
    """An index could not be built."""

    def __init__(self, index_id: str, error: Mapping[str, Any] | None) -> None:
        self.index_id, self.error = index_id, dict(error or {})
        super().__init__(f"The index {index_id} could not be built. {self.error.get('detail', '')}".strip())


class SweepFailed(TwoviewsError):
    """A sweep has ended without a best trial."""

    def __init__(self, sweep_id: str, status: str, error: Mapping[str, Any] | None) -> None:
        self.sweep_id, self.status, self.error = sweep_id, status, dict(error or {})
        super().__init__(f"The sweep {sweep_id} is {status}. {self.error.get('detail', '')}".strip())


class WaitTimeout(TwoviewsError):
    """A wait exceeded its timeout; the job, dataset, index or sweep goes on."""


class Corrupt(TwoviewsError):
    """A download does not have the expected SHA-256; no file was written."""


class CannotWrite(TwoviewsError, OSError):
    """A file cannot be written; `errno` has the system's reason."""

    def __init__(self, path: Path, error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno is not None else str(error)
        super().__init__(f"{path} cannot be written: {reason}.")
        self.errno = error.errno

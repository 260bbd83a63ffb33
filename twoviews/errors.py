"""Errors: what a caller of the client may catch.

TwoviewsError ─┬─ ApiError           the service answered, and refused
               ├─ CannotReach        no answer at all, after every retry
               ├─ NoCredentials      nobody said where the service is
               ├─ JobFailed          a job ended without success
               ├─ DatasetFailed      an upload could not be read
               ├─ Waited             the time for waiting is over
               └─ Corrupt            a download is not what the service said it would be
"""

from collections.abc import Mapping, Sequence
from typing import Any


class TwoviewsError(Exception):
    """Something went wrong; the message is one sentence for people."""


class ApiError(TwoviewsError):
    """The service refused. `code` is stable; `errors` are `{pointer, code, detail}`, one for each fault."""

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
    """No service is known: start one with `twoviews up`, or set TWOVIEWS_URL and TWOVIEWS_KEY."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or str(type(self).__doc__))


class JobFailed(TwoviewsError):
    """A job ended without success."""

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


class Waited(TwoviewsError):
    """The time for waiting is over; what was waited for goes on."""


class Corrupt(TwoviewsError):
    """A download is not what the service said it would be; nothing was kept."""

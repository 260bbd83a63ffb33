"""Errors of the service: each has an HTTP status, a code and a default sentence.

The class name in snake case is the `code`; its docstring is the default `detail`.

    Error ─┬─ BadRequest 400      ├─ NotFound 404            ├─ Unprocessable 422
           ├─ Unauthorized 401    ├─ Conflict 409            ├─ TooManyRequests 429
           └─ Forbidden 403       ├─ TooLarge 413            └─ Unavailable 503
                                  └─ UnsupportedMedia 415
"""

import re
from typing import ClassVar

from ssl_core.errors import Fault


class Error(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", *, errors: list[Fault] | None = None, retry_after: int | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.errors = errors or []
        self.retry_after = retry_after
        super().__init__(self.detail)

    @property
    def code(self) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()


class BadRequest(Error):
    """The request could not be read."""

    status, title = 400, "Bad request"


class Unauthorized(Error):
    """A valid key is required: Authorization: Bearer <key>."""

    status, title = 401, "Unauthorized"


class Forbidden(Error):
    """The key does not allow this."""

    status, title = 403, "Forbidden"


class NotFound(Error):
    """There is no such resource."""

    status, title = 404, "Not found"


class Conflict(Error):
    """The resource is not in a state that allows this."""

    status, title = 409, "Conflict"


class TooLarge(Error):
    """The body is larger than the limit of this service."""

    status, title = 413, "Too large"


class UnsupportedMedia(Error):
    """The media type of the body is not supported by this route."""

    status, title = 415, "Unsupported media type"


class Unprocessable(Error):
    """The request is well-formed but cannot be processed."""

    status, title = 422, "Unprocessable"


class TooManyRequests(Error):
    """Too many requests were sent; try again later."""

    status, title = 429, "Too many requests"


class Unavailable(Error):
    """The service is temporarily unavailable; try again."""

    status, title = 503, "Unavailable"


# --- keys --------------------------------------------------------------------------------------------------------


class MissingKey(Unauthorized):
    """No key was sent: Authorization: Bearer <key>."""


class WrongKey(Unauthorized):
    """This key is unknown or revoked."""


class ExpiredKey(Unauthorized):
    """This key has expired."""


class WrongToken(Unauthorized):
    """This token is unknown, used or expired: each signs in once, within 15 minutes."""


class ReadScopeNeeded(Forbidden):
    """This needs a key with the scope `read`."""


class EmbedScopeNeeded(Forbidden):
    """This needs a key with the scope `embed`."""


class TrainScopeNeeded(Forbidden):
    """This needs a key with the scope `train`."""


class AdminScopeNeeded(Forbidden):
    """This needs a key with the scope `admin`."""


class ScopeExceeded(Forbidden):
    """A key cannot give a scope that it does not have."""


class ExpiryPast(Conflict):
    """The expiry of the new key is past, by the database's clock."""


class ExpiryExceeded(Forbidden):
    """A key cannot make one that expires later than itself."""


class TooManyWrongKeys(TooManyRequests):
    """Too many wrong keys were sent from this address."""


class NoSuchKey(NotFound):
    """There is no such key."""


# --- datasets ----------------------------------------------------------------------------------------------------


class DatasetNotFound(NotFound):
    """There is no such dataset."""


class DatasetNotReady(Conflict):
    """The dataset is still being validated."""


class DatasetFailed(Conflict):
    """The dataset could not be ingested; its `error` has the reasons."""


class DatasetInUse(Conflict):
    """A job that has not ended uses this dataset."""


class ImageNotFound(NotFound):
    """The dataset has no image of this row."""


class EmptyUpload(Unprocessable):
    """The uploaded file is empty."""


class StorageAway(Unavailable):
    """The storage cannot be written: it is full or unavailable."""


class BackupUnusable(Conflict):
    """The folder is not a backup that can be restored."""


# --- jobs --------------------------------------------------------------------------------------------------------


class JobNotFound(NotFound):
    """There is no such job."""


class JobHasEnded(Conflict):
    """The job has ended, or is being cancelled."""


class JobNotEnded(Conflict):
    """The job has not ended: cancel it first."""


class JobInUse(Conflict):
    """The job is in use."""


class JobHasSucceeded(Conflict):
    """The job has succeeded, so there is nothing to retry; a clone of it runs again."""


class JobHasStarted(Conflict):
    """The priority of a job that runs or has ended cannot be changed."""


class UploadGone(Conflict):
    """The upload of an import is not kept once it has ended; upload the weights again."""


class UnknownKind(Unprocessable):
    """There is no such kind of job."""


class InvalidConfig(Unprocessable):
    """The config is invalid."""


class LabelsNeeded(Unprocessable):
    """This kind of job needs a dataset with labels."""


class BatchTooLarge(Unprocessable):
    """The batch is larger than the training split."""


class TooFewImages(Unprocessable):
    """The dataset has too few training images."""


class ModelNeeded(Unprocessable):
    """This kind of job needs a model: set `model`."""


class ParentFailed(Conflict):
    """The job named as the model ended without making one."""


# --- models ------------------------------------------------------------------------------------------------------


class ModelNotFound(NotFound):
    """There is no such model."""


class ModelNotReady(Conflict):
    """The job that makes this model has not succeeded yet."""


class ModelInUse(Conflict):
    """The model is in use."""


class AliasNotFound(NotFound):
    """There is no such alias."""


class ArtifactNotFound(NotFound):
    """There is no such artifact."""


# --- stored files ------------------------------------------------------------------------------------------------


class Corrupt(Conflict):
    """A stored file is missing, cannot be read, or does not have its recorded SHA-256."""


# --- indexes ------------------------------------------------------------------------------------------------------


class IndexNotFound(NotFound):
    """There is no such index."""


class IndexNotReady(Conflict):
    """The index is still being built."""


class IndexFailed(Conflict):
    """The index could not be built; its `error` has the reason."""


class SweepNotFound(NotFound):
    """There is no such sweep."""


class TooManySweeps(Conflict):
    """An owner has as many sweeps that have not ended as there may be."""


class SweepHasEnded(Conflict):
    """The sweep has ended."""


class JobHasNotSucceeded(Conflict):
    """The job has not succeeded, so it has no embeddings of its dataset."""


class NoEmbeddings(Unprocessable):
    """The job has left no embeddings of its dataset."""


class UnknownRow(Unprocessable):
    """The index has no image of this row of the dataset."""


class UnknownLabel(Unprocessable):
    """No image of the index has this label."""


class OutsideSelection(Unprocessable):
    """The row to start with is not among those to select from."""


class TooMuchWork(Unprocessable):
    """This takes longer than a request may; ask for less of it."""


# --- requests ----------------------------------------------------------------------------------------------------


class InvalidRequest(Unprocessable):
    """The request is invalid."""


class TooManyPolls(TooManyRequests):
    """Too many requests with this key wait for metrics or events, or stream them."""


class IdempotencyMismatch(Unprocessable):
    """This Idempotency-Key was used before, for a different request."""


class IdempotencyInFlight(Conflict):
    """A request with this Idempotency-Key is still being processed."""


class DatabaseFull(Unavailable):
    """The disk of the database is full; nothing was written. Try again in a moment."""


class DatabaseDamaged(Unavailable):
    """The database cannot be read: its disk fails, or its file is damaged."""


# --- quotas ------------------------------------------------------------------------------------------------------


class JobQuotaExceeded(Conflict):
    """As many jobs are queued as are allowed."""


class StorageQuotaExceeded(Conflict):
    """As many bytes are stored as are allowed."""


class RequestQuotaExceeded(TooManyRequests):
    """As many requests were sent in this minute as are allowed."""


# --- embed -------------------------------------------------------------------------------------------------------


class NotAnImage(Unprocessable):
    """The file is not a readable image."""


class TooManyImages(TooLarge):
    """The request has too many images."""


class ImageTooLarge(TooLarge):
    """An image is larger than the limit of this service."""


class TooManyPixels(TooLarge):
    """The images of the request have too many pixels together."""


class LayerNotFound(Unprocessable):
    """The model has no such layer."""


class EncoderBusy(Unavailable):
    """The encoder's queue is full; try again in a moment."""


class EncoderAway(Unavailable):
    """The encoder does not answer; try again in a moment."""


class EncoderFailed(Unavailable):
    """The encoder could not compute this; try again."""


# --- health ------------------------------------------------------------------------------------------------------


class NotReady(Unavailable):
    """A dependency of the service is missing."""

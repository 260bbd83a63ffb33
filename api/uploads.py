"""File uploads: streams a multipart body to a file of the storage, and hashes it.

Only one chunk is in memory. Parsing, hashing and writing run in a thread; the next chunk is received after the last one
was written, so that a slow disk applies backpressure to the client. An incomplete body leaves no file.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from anyio import CancelScope
from anyio.to_thread import run_sync
from fastapi import Request

from api.deps import Caller, SettingsDep, StorageDep, TrainCaller, TrainIdentity
from api.multipart import (
    MultipartForm,
    duplicate_field,
    invalid_field,
    is_declared_larger,
    parse_content_type,
)
from api.problems import describe_unknown
from service import idempotency, text
from service.errors import EmptyUpload, StorageAway, TooLarge, UnsupportedMedia
from service.quotas import checks, usage
from service.settings import Settings
from service.storage import Storage, make_durable
from ssl_core.errors import Fault

FILE = "file"
CHUNK_BYTES = 1 << 20
MAX_FIELD_BYTES = 4096
OVERHEAD_BYTES = 64 << 10  # of a multipart body, in addition to its file
CheckFields = Callable[[dict[str, str], str], object]  # of the text fields and the file's name


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete upload, stored at `path` under its SHA-256."""

    path: Path
    sha256: str
    size_bytes: int
    filename: str
    fields: dict[str, str]


def receiver(
    form_schema: dict[str, Any], limit: Callable[[Settings], int], check: CheckFields
) -> Callable[..., Awaitable[Upload]]:
    """Return a dependency that receives the form of this schema, with a file of at most `limit(settings)` bytes.

    check: raises InvalidRequest for text fields that are invalid. Nothing is stored of a form that is refused.
    """
    fields = [name for name in form_schema["properties"] if name != FILE]

    async def receive_form(
        request: Request, caller: TrainCaller, identity: TrainIdentity, settings: SettingsDep, storage: StorageDep
    ) -> Upload:
        most = limit(settings)
        key = request.headers.get("idempotency-key")
        used = await run_sync(_check_quotas, caller, key, settings)
        room = max(0, settings.quota_bytes - used) if settings.quota_bytes else most
        try:
            return await receive(request, storage, identity.tenant_id, fields, min(most, room), check)
        except TooLarge:
            if room < most:
                checks.raise_storage_quota(used, settings.quota_bytes)
            raise

    return receive_form


def _check_quotas(caller: Caller, key: str | None, settings: Settings) -> int:
    """Return the bytes that the caller stores; 0 without a quota and for a repeated request, which stores nothing more.

    Raises JobQuotaExceeded: the body is not received. The quotas are checked again when it has been.
    """
    if not settings.quota_bytes and not settings.quota_queued_jobs:
        return 0
    with caller.reading() as unit:
        if key is not None and idempotency.is_known(unit.session, unit.tenant_id, key):
            return 0
        checks.check_jobs(unit.session, unit.tenant_id, "data", settings)
        return usage.measure_bytes(unit.session, unit.tenant_id).total if settings.quota_bytes else 0


async def receive(
    request: Request, storage: Storage, tenant_id: str, fields: list[str], limit: int, check: CheckFields
) -> Upload:
    """Receive a multipart body: one part `file` of at most `limit` bytes, and text parts named in `fields`.

    Raises UnsupportedMedia, BadRequest (not valid multipart, or incomplete), TooLarge, InvalidRequest (a part is
    unknown, duplicated or missing), EmptyUpload, StorageAway.
    """
    media_type, boundary = parse_content_type(request)
    if media_type != b"multipart/form-data":
        raise UnsupportedMedia("Send the file as multipart/form-data, in a part called `file`.")
    is_too_large = is_declared_larger(request, limit + OVERHEAD_BYTES)
    try:
        temporary = await run_sync(storage.new_upload)
        try:
            form = await run_sync(_Form, temporary, boundary, fields, limit, is_too_large)
            try:
                received = 0
                async for chunk in _chunks(request, 1 if is_too_large else CHUNK_BYTES):
                    await run_sync(form.feed, chunk)
                    received += len(chunk)
                    if received > limit + OVERHEAD_BYTES:  # not of the file, whose bytes `feed` counts
                        raise _too_large(limit)
                return await run_sync(form.store, storage, tenant_id, check)
            finally:
                with CancelScope(shield=True):
                    await run_sync(form.close)
        finally:
            with CancelScope(shield=True):
                await run_sync(_unlink, temporary)
    except OSError as error:  # full or unavailable
        raise StorageAway from error


async def _chunks(request: Request, least: int) -> AsyncIterator[bytes]:
    """Yield the body in chunks of at least `least` bytes. Raises starlette's ClientDisconnect when it ends early."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size >= least:
            yield b"".join(pieces)
            pieces, size = [], 0
    yield b"".join(pieces)


class _Form(MultipartForm):
    """An upload form: writes the part called `file` to disk, and keeps the others as text."""

    def __init__(self, path: Path, boundary: bytes, fields: list[str], limit: int, is_too_large: bool) -> None:
        """is_too_large: by the declared size of the body; raised once the file begins, since a field may be unknown."""
        super().__init__(boundary)
        self._is_too_large = is_too_large
        self._path, self._known, self._limit = path, [FILE, *fields], limit
        self._file: BinaryIO = path.open("xb")
        self._hash, self._size, self._filename = hashlib.sha256(), 0, ""
        self._values: dict[str, bytearray] = {}
        self._name = ""

    def store(self, storage: Storage, tenant_id: str, check: CheckFields) -> Upload:
        """Check that the form is complete and valid, and move the file durably to its path in the storage."""
        self.check_ended()
        if FILE not in self._values:
            raise invalid_field(FILE, "missing", "The form needs a part called `file`.")
        if self._size == 0:
            raise EmptyUpload(errors=[Fault(pointer=f"/{FILE}", code="empty", detail="The file is empty.")])
        fields = {name: _decode(name, value) for name, value in self._values.items() if name != FILE}
        check(fields, self._filename)
        self._file.close()
        sha256 = self._hash.hexdigest()
        final = storage.upload_path(tenant_id, sha256)
        make_durable(self._path, final)
        return Upload(final, sha256, self._size, self._filename, fields)

    def close(self) -> None:
        self._file.close()

    def begin_part(self, name: str, filename: str) -> None:
        if name not in self._known:
            raise invalid_field(name, "extra_forbidden", describe_unknown("field", name, self._known))
        if name in self._values:
            raise duplicate_field(name)
        if name == FILE and self._is_too_large:
            raise _too_large(self._limit)
        self._name, self._values[name] = name, bytearray()
        if name == FILE:
            self._filename = _clean_filename(filename)

    def add_data(self, data: memoryview) -> None:
        if self._name != FILE:
            value = self._values[self._name]
            value += data
            if len(value) > MAX_FIELD_BYTES:
                raise invalid_field(self._name, "too_long", f"A field can have at most {MAX_FIELD_BYTES} bytes.")
            return
        self._size += len(data)
        if self._size > self._limit:
            raise _too_large(self._limit)
        self._hash.update(data)
        self._file.write(data)

    def end_part(self) -> None:
        pass


def _decode(name: str, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise invalid_field(name, "not_utf8", "Must be UTF-8 text.") from error


def _clean_filename(filename: str) -> str:
    """Return the file's name without folders and unprintable characters. It is never used as a path."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    return "".join(letter for letter in name if text.is_printable(letter))[: text.MAX_LINE]


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The file is larger than {limit} bytes.")


def _unlink(path: Path) -> None:
    with suppress(OSError):  # the keeper removes it later
        path.unlink(missing_ok=True)

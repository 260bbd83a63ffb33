"""Uploads: a multipart body that becomes a file of the storage while it arrives, hashed on the way.

Nothing is held but one chunk. Parsing, hashing and writing happen on a thread; the next chunk is asked for when the
last one is on its way to the disk, so a slow disk slows the sender. A body that ends early leaves nothing behind.
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from anyio import CancelScope
from anyio.to_thread import run_sync
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.problems import unknown
from service import text
from service.errors import BadRequest, EmptyUpload, InvalidRequest, StorageAway, TooLarge, UnsupportedMedia
from service.storage import Storage, make_durable
from ssl_core.errors import Fault, json_pointer

FILE = "file"
CHUNK_BYTES = 1 << 20
MAX_FIELD_BYTES = 4096
OVERHEAD_BYTES = 64 << 10  # of a multipart body beside its file


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that arrived whole. It is `path`, resolved in the storage under its SHA-256."""

    path: Path
    sha256: str
    size_bytes: int
    filename: str
    fields: dict[str, str]


async def receive(request: Request, storage: Storage, tenant_id: str, known: list[str], limit: int) -> Upload:
    """Receive a multipart body: one part `file` and text fields out of `known`, in any order.

    Raises UnsupportedMedia, BadRequest (not multipart after all, or cut short), TooLarge (more than `limit` bytes),
    InvalidRequest (a part is unknown, doubled or missing), EmptyUpload, StorageAway.
    """
    boundary = _boundary(request)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit + OVERHEAD_BYTES:
        raise _too_large(limit)
    temporary = await run_sync(storage.new_upload)
    try:
        form = await run_sync(_Form, temporary, boundary, [FILE, *known], limit)
        try:
            async for chunk in _chunks(request):
                await run_sync(form.feed, chunk)
            return await run_sync(form.settle, storage, tenant_id)
        finally:
            with CancelScope(shield=True):
                await run_sync(form.close)
    except OSError as error:  # full, or gone
        raise StorageAway from error
    finally:
        with CancelScope(shield=True):
            await run_sync(_unlink, temporary)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in chunks worth a thread's while. Raises starlette's ClientDisconnect when it ends early."""
    waiting: list[bytes] = []
    size = 0
    async for piece in request.stream():
        waiting.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


@dataclass(slots=True)
class _Part:
    name: str = ""
    filename: str = ""
    disposition: bytearray = field(default_factory=bytearray)
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)


class _Form:
    """The parser's callbacks: the part called `file` goes to disk, the others are kept as text."""

    def __init__(self, path: Path, boundary: bytes, known: list[str], limit: int) -> None:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end")
        callbacks = {f"on_{name}": getattr(self, f"_{name}") for name in (*names, "headers_finished", "end")}
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a TypedDict, built by name
        except FormParserError as error:
            raise BadRequest(f"The multipart boundary cannot be used: {error}.") from error
        self._path, self._known, self._limit = path, known, limit
        self._file: BinaryIO = path.open("xb")
        self._hash, self._size, self._filename = hashlib.sha256(), 0, ""
        self._seen: dict[str, bytearray] = {}
        self._part = _Part()
        self._ended = False

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"The body is not a multipart form: {error}.") from error

    def settle(self, storage: Storage, tenant_id: str) -> Upload:
        """Check that all is there, and give the file its final name, on disk for good."""
        if not self._ended:
            raise BadRequest("The multipart body ends before its last boundary.")
        if FILE not in self._seen:
            raise _invalid(FILE, "missing", "The form needs a part called `file`.")
        if self._size == 0:
            raise EmptyUpload(errors=[Fault(pointer=f"/{FILE}", code="empty", detail="The file is empty.")])
        fields = {name: _text(name, value) for name, value in self._seen.items() if name != FILE}
        self._file.close()
        sha256 = self._hash.hexdigest()
        final = storage.upload_path(tenant_id, sha256)
        make_durable(self._path, final)
        return Upload(final, sha256, self._size, self._filename, fields)

    def close(self) -> None:
        self._file.close()

    def _part_begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        if self._part.header.lower() == b"content-disposition":
            self._part.disposition += data[start:end]

    def _header_end(self) -> None:
        self._part.header.clear()

    def _headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(bytes(part.disposition))
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if part.name not in self._known:
            raise _invalid(part.name, "extra_forbidden", unknown("field", part.name, self._known))
        if part.name in self._seen:
            raise doubled(part.name)
        self._seen[part.name] = part.value
        if part.name == FILE:
            self._filename = _shown(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name != FILE:
            self._part.value += data[start:end]
            if len(self._part.value) > MAX_FIELD_BYTES:
                raise _invalid(self._part.name, "too_long", f"A field holds at most {MAX_FIELD_BYTES} bytes.")
            return
        self._size += end - start
        if self._size > self._limit:
            raise _too_large(self._limit)
        piece = memoryview(data)[start:end]
        self._hash.update(piece)
        self._file.write(piece)

    def _part_end(self) -> None:
        self._part.disposition.clear()

    def _end(self) -> None:
        self._ended = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise UnsupportedMedia("Send the file as multipart/form-data, in a part called `file`.")
    if not options.get(b"boundary"):
        raise BadRequest("The Content-Type names no multipart boundary.")
    return options[b"boundary"]


def _text(name: str, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _invalid(name, "not_utf8", "Must be UTF-8 text.") from error


def _shown(filename: str) -> str:
    """The file's own name without its folders, fit to be shown; never used as a path."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    return "".join(letter for letter in name if text.is_printable(letter))[: text.MAX_LINE]


def doubled(name: str) -> InvalidRequest:
    """The error of a form with two parts of one name, of which only one may be meant."""
    return _invalid(name, "doubled", f"The form has more than one part called `{name}`.")


def _invalid(name: str, code: str, detail: str) -> InvalidRequest:
    pointer = json_pointer(name[:64])
    return InvalidRequest(detail, errors=[Fault(pointer=pointer, code=code, detail=detail)])


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The file is larger than {limit} bytes.")


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)

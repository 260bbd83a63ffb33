"""Downloads: files of the storage, hashed while they are sent and compared with the SHA-256 that was recorded for them.

A small file is hashed before its response starts, so that a damaged one is 409 `corrupt`. A larger one is hashed as it
is sent: if it is damaged, the connection is closed before its last bytes, so that the client misses some, and the next
request for it in this process is 409. A range of it is sent once this process has hashed the whole file.
"""

import base64
import hashlib
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from os import stat_result
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from api.responses import has_current_etag
from service.errors import Corrupt

SMALL_BYTES = 2**20
_MOST_KNOWN = 10_000  # files whose outcome is kept
_log = logging.getLogger(__name__)
_Signature = tuple[str, int, int, int]


@dataclass(frozen=True)
class Recorded:
    """What was recorded of a file when it was written."""

    sha256: str
    size_bytes: int | None = None

    @classmethod
    def of(cls, entry: Any) -> "Recorded | None":
        """Return that of an entry `{sha256, size_bytes}` of a model's card; None without one."""
        return cls(entry["sha256"], entry["size_bytes"]) if entry else None


def file(request: Request, path: Path, media_type: str, filename: str, recorded: Recorded | None) -> Response:
    """Return the file at `path`, with support for Range and HEAD; its recorded SHA-256 is its ETag and Repr-Digest.

    Runs in a thread: it may hash the file. Raises Corrupt; without `recorded` nothing is checked.
    """
    headers = {"Cache-Control": "private, max-age=0, must-revalidate"}
    if recorded is None:
        return FileResponse(path, headers=headers, media_type=media_type, filename=filename)
    digest = base64.b64encode(bytes.fromhex(recorded.sha256)).decode()
    headers |= {"ETag": f'"{recorded.sha256}"', "Repr-Digest": f"sha-256=:{digest}:"}
    if has_current_etag(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    status = path.stat()
    check = _Check(path, status, recorded)
    check.before(is_range="range" in request.headers and request.method != "HEAD")
    return _CheckedResponse(check, path, headers=headers, media_type=media_type, filename=filename, stat_result=status)


class _Outcomes:
    """Whether files were sound when this process last hashed them. A file written again has another signature."""

    def __init__(self) -> None:
        self._sound: OrderedDict[_Signature, bool] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, signature: _Signature) -> bool | None:
        with self._lock:
            return self._sound.get(signature)

    def set(self, signature: _Signature, sound: bool) -> None:
        with self._lock:
            self._sound[signature] = sound
            self._sound.move_to_end(signature)
            while len(self._sound) > _MOST_KNOWN:
                self._sound.popitem(last=False)


_outcomes = _Outcomes()
_hashing = threading.Lock()


class _Check:
    """The comparison of one file, opened for one response, with what was recorded."""

    def __init__(self, path: Path, status: stat_result, recorded: Recorded) -> None:
        self._path = path
        self._size = status.st_size
        self._recorded = recorded
        self._signature = (recorded.sha256, status.st_ino, status.st_size, status.st_mtime_ns)

    def before(self, *, is_range: bool) -> None:
        """Check what can be known before the response starts. Raises Corrupt."""
        known = _outcomes.get(self._signature)
        if known is None and is_range and self._size > SMALL_BYTES:
            with _hashing:  # one at a time: many ranges of one file are often requested together
                known = _outcomes.get(self._signature)
                known = self._hash() if known is None else known
        elif self._size <= SMALL_BYTES and known is not False:
            known = self._hash()
        if known is False or self._recorded.size_bytes not in (None, self._size):
            raise Corrupt(f"The stored file {self._path.name} is damaged: its bytes are not those that were written.")

    def _hash(self) -> bool:
        with self._path.open("rb") as file:
            return self.conclude(hashlib.file_digest(file, "sha256").hexdigest())

    def conclude(self, sha256: str) -> bool:
        """Keep the outcome, and return whether the file is sound."""
        sound = sha256 == self._recorded.sha256
        _outcomes.set(self._signature, sound)
        if not sound:
            _log.error("%s is damaged: its SHA-256 is %s, recorded is %s", self._path, sha256, self._recorded.sha256)
        return sound


class _CheckedResponse(FileResponse):
    """Sends a file and hashes it; ends without the last bytes of a damaged one, at which the server disconnects."""

    def __init__(self, check: _Check, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, "extensions": {}}  # the server would send the file itself, unhashed
        await super().__call__(scope, receive, _HashingSend(self._check, int(self.headers["content-length"]), send))


class _HashingSend:
    """Passes a response on. That of a whole file is held back at its last bytes until they are known to be sound."""

    def __init__(self, check: _Check, size: int, send: Send) -> None:
        self._check = check
        self._left = size
        self._send = send
        self._digest = hashlib.sha256()
        self._is_whole = False
        self._is_damaged = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_whole = message["status"] == 200 and self._left > SMALL_BYTES
        elif self._is_whole and not self._is_damaged and (body := message.get("body", b"")):
            self._digest.update(body)
            self._left -= len(body)
            self._is_damaged = self._left <= 0 and not self._check.conclude(self._digest.hexdigest())
        if not self._is_damaged:
            await self._send(message)

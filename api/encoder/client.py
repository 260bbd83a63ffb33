"""HTTP client of the encoder (`worker.encoder`), over its Unix socket or TCP."""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from api.encoder.connection import Connection, Reply
from service.errors import (
    Corrupt,
    EncoderAway,
    EncoderBusy,
    EncoderFailed,
    Error,
    ImageNotFound,
    LayerNotFound,
    NotAnImage,
    OutsideSelection,
    TooManyPixels,
    TooMuchWork,
    UnknownLabel,
    UnknownRow,
)
from service.indexes.queries import Query
from service.indexes.registry import Searched
from service.logs import context
from service.settings import Settings

CONNECT_SECONDS = 2
HEALTH_SECONDS = 2
IDLE_SECONDS = 30  # less than the keep-alive timeout of the encoder
IDLE_CONNECTIONS = 64
RETRY_SECONDS = 2
log = logging.getLogger(__name__)

# Errors of the encoder that are passed on to the client. Any other is logged, and is EncoderAway to the client.
_ERRORS = {
    kind().code: kind
    for kind in (
        NotAnImage,
        TooManyPixels,
        ImageNotFound,
        LayerNotFound,
        UnknownRow,
        UnknownLabel,
        OutsideSelection,
        TooMuchWork,
        Corrupt,
        EncoderBusy,
        EncoderFailed,
    )
}


@dataclass(frozen=True, slots=True)
class Features:
    """N×dim little-endian float32, row by row."""

    dim: int
    data: bytes


class EncoderClient:
    """An async context manager for one event loop, with one connection for each concurrent request."""

    def __init__(self, settings: Settings) -> None:
        token = settings.encoder_token.get_secret_value()
        self._url = urlsplit(settings.encoder_url)
        self._socket = str(settings.data_dir.absolute() / "encoder.sock")
        self._common = f"Host: {self._url.netloc or 'encoder'}\r\n"
        self._common += f"Authorization: Bearer {token}\r\n" if token else ""
        self._answer_seconds = settings.embed_answer_seconds
        self._idle: list[Connection] = []  # the most recently used last

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def encode(self, model_path: str, layer: str, images: Sequence[bytes], *, owner: str) -> Features:
        """Return the features of N encoded images; the requests of different owners take turns.

        Raises NotAnImage, TooManyPixels, LayerNotFound, Corrupt, EncoderBusy, EncoderFailed; EncoderAway when it
        does not answer.
        Cancellation closes the connection, and the encoder drops images that it has not begun.
        """
        sizes = [len(image) for image in images]
        fields = (
            f"X-Model-Path: {model_path}\r\nX-Layer: {layer}\r\n"
            f"X-Sizes: {','.join(map(str, sizes))}\r\nContent-Length: {sum(sizes)}\r\n"
        )
        reply = await self._ask("POST /encode", owner, fields, images)
        return Features(int(reply.headers["x-dim"]), reply.body)

    async def describe_images(self, dataset_path: str, rows: Sequence[int], *, owner: str) -> list[dict[str, Any]]:
        """Return `{row, split, label, width, height, name}` of each row; the label is a number or None.

        Raises ImageNotFound, Corrupt, EncoderBusy; EncoderAway when it does not answer.
        """
        if not rows:
            return []
        fields = f"X-Dataset-Path: {dataset_path}\r\nX-Rows: {','.join(map(str, rows))}\r\n"
        found: list[dict[str, Any]] = orjson.loads((await self._ask("GET /images", owner, fields)).body)
        return found

    async def draw_thumbnail(self, dataset_path: str, row: int, size: int, *, owner: str) -> bytes:
        """Return an image as a JPEG whose longer side has at most `size` pixels.

        Raises ImageNotFound, Corrupt, TooManyPixels, EncoderBusy, EncoderFailed; EncoderAway when it does not answer.
        """
        fields = f"X-Dataset-Path: {dataset_path}\r\nX-Rows: {row}\r\nX-Size: {size}\r\n"
        return (await self._ask("GET /thumbnail", owner, fields)).body

    async def search(self, index: Searched, verb: str, query: Query, body: bytes = b"", *, owner: str) -> Any:
        """Return the encoder's answer to a query (`service.indexes.queries`); `body` is its image or its vector.

        Raises NotAnImage, TooManyPixels, UnknownRow, UnknownLabel, OutsideSelection, TooMuchWork, Corrupt, EncoderBusy,
        EncoderFailed; EncoderAway when it does not answer.
        """
        fields = f"X-Index-Path: {index.path}\r\nX-Query: {json.dumps(query.model_dump(exclude_defaults=True))}\r\n"
        fields += f"X-Model-Path: {index.model_path}\r\nX-Layer: {index.layer}\r\n"
        fields += f"X-Sizes: {len(body)}\r\nContent-Length: {len(body)}\r\n"
        return orjson.loads((await self._ask(f"POST /search/{verb}", owner, fields, [body] if body else [])).body)

    async def read_health(self) -> dict[str, Any]:
        """Return the encoder's health: its queue, its models and its counters. Raises EncoderAway."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                reply = await self._request(f"GET /health HTTP/1.1\r\n{self._common}\r\n".encode("ascii"), [])
            health = orjson.loads(reply.body)
        except (OSError, TimeoutError, orjson.JSONDecodeError) as error:
            raise EncoderAway(retry_after=RETRY_SECONDS) from error
        if not isinstance(health, dict) or "waiting" not in health:  # the token differs
            raise EncoderAway(retry_after=RETRY_SECONDS)
        return health

    async def _ask(self, call: str, owner: str, fields: str, body: Sequence[bytes] = ()) -> Reply:
        """Return the successful response to a call with these header lines. Raises the encoder's error, EncoderAway."""
        head = f"{call} HTTP/1.1\r\n{self._common}X-Owner: {owner}\r\n{_request_id_header()}{fields}\r\n"
        try:
            reply = await self._request(head.encode("ascii"), body)
        except (OSError, TimeoutError) as error:
            raise EncoderAway(retry_after=RETRY_SECONDS) from error
        if reply.status != 200:
            raise _to_error(reply)
        return reply

    async def _request(self, head: bytes, body: Sequence[bytes]) -> Reply:
        connection = self._reuse() or await self._connect()
        try:
            async with asyncio.timeout(self._answer_seconds):
                reply = await connection.request(head, body)
        except BaseException:
            connection.close()
            raise
        self._release(connection)
        return reply

    def _reuse(self) -> Connection | None:
        """Return the most recently used idle connection, so that the others expire; None when there is none."""
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    def _release(self, connection: Connection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        if connection.open and len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            if self._url.netloc:
                _, connection = await loop.create_connection(Connection, self._url.hostname or "", self._url.port or 80)
            else:
                _, connection = await loop.create_unix_connection(Connection, self._socket)
        return connection


def _request_id_header() -> str:
    """Return the header line with the id of the API's request (`api.middleware` checks its characters)."""
    request_id = context.get().get("request")
    return f"X-Request-ID: {request_id}\r\n" if request_id else ""


def _to_error(reply: Reply) -> Error:
    try:
        problem: dict[str, Any] = orjson.loads(reply.body)
        kind = _ERRORS[problem["code"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        log.error("the encoder answered %d: %r", reply.status, reply.body[:500])
        return EncoderAway(retry_after=RETRY_SECONDS)
    wait = reply.headers.get("retry-after", "")
    return kind(problem["detail"], errors=problem["errors"], retry_after=int(wait) if wait.isdigit() else None)

"""The encoder: a small ASGI server that turns images into embeddings. Only the API talks to it.

    POST /encode   X-Model-Path: the model's folder, relative to the storage     → N×D little-endian float32, X-Dim: D
                   X-Layer: "backbone", "projection" or a block
                   X-Sizes: "n1,n2,…", the lengths of the images, which follow one another in the body
    GET /health    answers once models can be served, and says what went through

Errors are problem documents; the pointer `/images/<i>` names the image that is to blame. Over TCP the caller shows
`Authorization: Bearer <encoder_token>`; the Unix socket is its owner's alone.
"""

import asyncio
import hmac
import itertools
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

import uvicorn

from service.errors import Error, InvalidRequest, NotFound, WrongKey
from service.settings import Settings
from service.storage import Storage
from worker.encoder import socket
from worker.encoder.batcher import Features
from worker.encoder.embedder import Embedder

Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

KEEP_ALIVE_SECONDS = 75  # more than the API keeps an idle connection, so that it is never the first to be surprised
log = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM; then answer what was taken in, and end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings()
    config = uvicorn.Config(
        Encoder(settings),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, int(settings.grace_seconds)),
    )
    try:
        door = socket.listen(settings)
    except (OSError, ValueError) as error:
        sys.exit(f"The encoder cannot listen: {error}")
    uvicorn.Server(config).run(sockets=[door])


class _Gone(Exception):
    """The caller hung up."""


@dataclass(frozen=True)
class _Order:
    """What a request's headers ask for."""

    model_path: str
    layer: str
    sizes: list[int]


class Encoder:
    """The ASGI application."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._storage = Storage(settings.data_dir)
        self._token = settings.encoder_token.get_secret_value() if settings.encoder_url else ""
        self._embedder = Embedder(settings)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            headers, body = await self._answer(scope, receive)
            await _send(send, 200, headers, body)
        except _Gone:
            return
        except Error as error:
            await _send_problem(send, error)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._embedder.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._embedder.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[dict[str, str], bytes]:
        match scope["method"], scope["path"]:
            case "GET", "/health":
                known = self._knows(dict(scope["headers"]))
                return {"content-type": "application/json"}, json.dumps(self._health(known)).encode()
            case "POST", "/encode":
                features = await self._encode(dict(scope["headers"]), receive)
                headers = {"content-type": "application/octet-stream", "x-dim": str(features.shape[1])}
                return headers, features.astype("<f4", copy=False).tobytes()
        raise NotFound

    def _health(self, known: bool) -> dict[str, Any]:
        """Whether it works, for anybody; at what, for those who know the token."""
        if not known:
            return {"status": "ok"}
        embedder = self._embedder
        return {"status": "ok", "models": embedder.models(), "waiting": embedder.waiting(), **asdict(embedder.counts())}

    async def _encode(self, headers: dict[bytes, bytes], receive: Receive) -> Features:
        if not self._knows(headers):
            raise WrongKey
        order = self._order(headers)
        with self._embedder.admit(len(order.sizes)):
            body = await _body(receive, sum(order.sizes))
            ends = list(itertools.accumulate(order.sizes, initial=0))
            blobs = [bytes(body[start:end]) for start, end in itertools.pairwise(ends)]
            return await _unless_gone(self._embedder.embed(order.model_path, order.layer, blobs), receive)

    def _knows(self, headers: dict[bytes, bytes]) -> bool:
        shown = headers.get(b"authorization", b"")
        return not self._token or hmac.compare_digest(shown, b"Bearer " + self._token.encode())

    def _order(self, headers: dict[bytes, bytes]) -> _Order:
        path, layer, sizes = (
            headers.get(name, b"").decode("latin-1") for name in (b"x-model-path", b"x-layer", b"x-sizes")
        )
        if not re.fullmatch(r"\d{1,12}(,\d{1,12})*", sizes, re.ASCII):
            raise InvalidRequest("X-Sizes: must be the lengths of the images.")
        try:
            self._storage.absolute(path)
        except ValueError as error:
            raise InvalidRequest("X-Model-Path: must be a path inside the storage.") from error
        return _Order(path, layer or "backbone", [int(size) for size in sizes.split(",")])


async def _body(receive: Receive, size: int) -> memoryview:
    """Read the body, which must be of that size."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        more = message.get("more_body", False) and len(body) <= size
    if len(body) != size:
        raise InvalidRequest("X-Sizes: must add up to the length of the body.")
    return memoryview(body)


async def _unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Return what `work` returns; when the caller hangs up first, cancel it and raise _Gone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(receive())  # the body is read: the next message is that nobody listens any more
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _Gone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _send(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    fields.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def _send_problem(send: Send, error: Error) -> None:
    headers = {"content-type": "application/problem+json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    problem = {"title": error.title, "status": error.status, "detail": error.detail, "code": error.code}
    body = json.dumps({"type": "about:blank", **problem, "errors": error.errors})
    await _send(send, error.status, headers, body.encode())

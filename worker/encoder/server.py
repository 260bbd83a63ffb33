"""The encoder server: an ASGI application that opens images, for the API only: it embeds them, draws thumbnails and
searches indexes.

    POST /encode   X-Model-Path: the model's folder, relative to the storage     → N×D little-endian float32, X-Dim: D
                   X-Layer: "backbone", "projection" or a block
                   X-Owner: the tenant's id; owners take turns
                   X-Request-ID: the id of the API's request, for logs
                   X-Sizes: "n1,n2,…", the lengths in bytes of the images, which are concatenated in the body
    GET /images    X-Dataset-Path: the dataset's folder, relative to the storage → JSON, one object for each row
                   X-Rows: "r1,r2,…", at most 1000; X-Owner and X-Request-ID as above
    GET /thumbnail X-Dataset-Path, X-Rows: one row; X-Size: the longer side in pixels   → JPEG
                   X-Owner and X-Request-ID as above
    POST /search/<verb>   X-Index-Path: the index's folder, relative to the storage; X-Query: one of
                   `service.indexes.queries` as JSON; X-Owner and X-Request-ID as above
                   a query by an image: X-Model-Path, X-Layer and X-Sizes as above, and the image in the body
                   a query by a vector: X-Sizes, and D little-endian float64 in the body        → JSON
    GET /health    answers once models can be served, with counts of images and batches

Errors are problem documents; the pointer `/images/<i>` names the invalid image. TCP needs the header
`Authorization: Bearer <encoder_token>`; the Unix socket is accessible to its owner only.
"""

import hmac
import itertools
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import uvicorn
from pydantic import ValidationError

from service import logs
from service.disconnect import ClientDisconnected, cancel_on_disconnect
from service.errors import Error, InvalidRequest, NotFound, WrongKey
from service.indexes.queries import QUERIES, Nearest, Query
from service.logs import context
from service.settings import Settings
from service.storage import Storage
from worker.encoder import socket
from worker.encoder.batcher import Features
from worker.encoder.embedder import Embedder
from worker.encoder.gallery import MEDIA_TYPE, Gallery
from worker.encoder.search.nearest import normalise
from worker.encoder.search.searcher import Searcher

Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = dict[bytes, bytes]

MAX_ROWS = 1000  # described in one response
KEEP_ALIVE_SECONDS = 75  # longer than the API keeps an idle connection, so that the API closes first
log = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM, then answer the admitted requests and end."""
    settings = logs.start()
    config = uvicorn.Config(
        Encoder(settings),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,  # service.logs
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, int(settings.grace_seconds)),
    )
    try:
        listener = socket.listen(settings)
    except (OSError, ValueError) as error:
        sys.exit(f"The encoder cannot listen: {error}")
    log.info("The encoder starts")
    uvicorn.Server(config).run(sockets=[listener])


@dataclass(frozen=True)
class _EncodeRequest:
    """The headers of a request; `sizes` are the lengths of the images in bytes."""

    model_path: str
    layer: str
    owner: str
    sizes: list[int]


@dataclass(frozen=True)
class _ImagesRequest:
    """The headers of a request for images of a dataset."""

    dataset_path: str
    owner: str
    rows: list[int]


@dataclass(frozen=True)
class _SearchRequest:
    """The headers of a search."""

    index_path: str
    owner: str
    query: Query


class Encoder:
    """The ASGI application."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._storage = Storage(settings.data_dir)
        self._token = settings.encoder_token.get_secret_value() if settings.encoder_url else ""
        self._embedder = Embedder(settings)
        self._gallery = Gallery(settings, self._embedder.decoder)
        self._searcher = Searcher(settings)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        with context.bound(**_log_ids(scope)):
            try:
                headers, body = await self._route(scope, receive)
                await _send(send, 200, headers, body)
            except ClientDisconnected:
                return
            except Error as error:
                log.log(logging.WARNING if error.status >= 500 else logging.INFO, "%s: %s", error.code, error.detail)
                await _send_problem(send, error)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._embedder.start()
        self._gallery.start()
        self._searcher.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._searcher.stop()
        self._gallery.stop()
        await self._embedder.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _route(self, scope: Message, receive: Receive) -> tuple[dict[str, str], bytes]:
        match scope["method"], scope["path"]:
            case "GET", "/health":
                authorized = self._is_authorized(dict(scope["headers"]))
                return {"content-type": "application/json"}, json.dumps(self._health(authorized)).encode()
            case "POST", "/encode":
                features = await self._encode(dict(scope["headers"]), receive)
                headers = {"content-type": "application/octet-stream", "x-dim": str(features.shape[1])}
                return headers, features.astype("<f4", copy=False).tobytes()
            case "GET", "/images":
                images = await self._describe_images(dict(scope["headers"]), receive)
                return {"content-type": "application/json"}, json.dumps(images).encode()
            case "GET", "/thumbnail":
                return {"content-type": MEDIA_TYPE}, await self._draw_thumbnail(dict(scope["headers"]), receive)
            case "POST", path if path.removeprefix("/search/") in QUERIES:
                found = await self._search(path.removeprefix("/search/"), dict(scope["headers"]), receive)
                return {"content-type": "application/json"}, json.dumps(found).encode()
        raise NotFound

    def _health(self, authorized: bool) -> dict[str, Any]:
        """Return the status, and the counters to an authorized client."""
        if not authorized:
            return {"status": "ok"}
        embedder = self._embedder
        queue = {"waiting": embedder.waiting(), "places": embedder.places()}
        gallery: dict[str, Any] = {"thumbnails": self._gallery.rendered, "thumbnail_bytes": self._gallery.cached_bytes}
        gallery |= {"indexes": self._searcher.names(), "searches": self._searcher.searches}
        return {"status": "ok", "models": embedder.models(), **queue, **gallery, **asdict(embedder.counts())}

    async def _describe_images(self, headers: Headers, receive: Receive) -> list[dict[str, Any]]:
        request = self._parse_images(headers)
        work = self._gallery.describe(request.dataset_path, request.rows, request.owner)
        return await cancel_on_disconnect(work, receive)

    async def _draw_thumbnail(self, headers: Headers, receive: Receive) -> bytes:
        request = self._parse_images(headers)
        size = headers.get(b"x-size", b"")
        if len(request.rows) != 1 or not re.fullmatch(rb"[1-9]\d{0,3}", size):
            raise InvalidRequest("X-Rows must be one row, X-Size a number of pixels.")
        work = self._gallery.draw_thumbnail(request.dataset_path, request.rows[0], int(size), request.owner)
        return await cancel_on_disconnect(work, receive)

    async def _search(self, verb: str, headers: Headers, receive: Receive) -> dict[str, Any]:
        request = self._parse_search(verb, headers)
        vector = await self._read_vector(request, headers, receive)
        work = self._searcher.answer(request.index_path, request.query, request.owner, vector)
        return await cancel_on_disconnect(work, receive)

    async def _read_vector(self, request: _SearchRequest, headers: Headers, receive: Receive) -> Features | None:
        """Return the vector of a query, 1×D: that in the body, or that of the image in the body."""
        kind = request.query.body if isinstance(request.query, Nearest) else ""
        if kind == "image":
            return await self._encode(headers, receive)
        if kind == "vector":
            (data,) = await _read_images(receive, _parse_numbers(headers, b"x-sizes", "X-Sizes: must be a length."))
            return normalise(np.frombuffer(data, "<f8")[None])
        return None

    async def _encode(self, headers: Headers, receive: Receive) -> Features:
        request = self._parse_headers(headers)
        with self._embedder.admit(len(request.sizes), request.owner):
            blobs = await _read_images(receive, request.sizes)
            work = self._embedder.embed(request.model_path, request.layer, blobs, request.owner)
            return await cancel_on_disconnect(work, receive)

    def _is_authorized(self, headers: Headers) -> bool:
        credentials = headers.get(b"authorization", b"")
        return not self._token or hmac.compare_digest(credentials, b"Bearer " + self._token.encode())

    def _parse_headers(self, headers: Headers) -> _EncodeRequest:
        path = self._parse_path(headers, b"x-model-path")
        layer = headers.get(b"x-layer", b"").decode("latin-1")
        sizes = _parse_numbers(headers, b"x-sizes", "X-Sizes: must be the lengths of the images.")
        return _EncodeRequest(path, layer or "backbone", _read_owner(headers), sizes)

    def _parse_images(self, headers: Headers) -> _ImagesRequest:
        path = self._parse_path(headers, b"x-dataset-path")
        rows = _parse_numbers(headers, b"x-rows", "X-Rows: must be numbers of rows.")
        if len(rows) > MAX_ROWS:
            raise InvalidRequest(f"X-Rows: at most {MAX_ROWS}.")
        return _ImagesRequest(path, _read_owner(headers), rows)

    def _parse_search(self, verb: str, headers: Headers) -> _SearchRequest:
        path = self._parse_path(headers, b"x-index-path")
        try:
            query = QUERIES[verb].model_validate_json(headers.get(b"x-query", b""))
        except ValidationError as error:
            raise InvalidRequest("X-Query: must be a query.") from error
        return _SearchRequest(path, _read_owner(headers), query)

    def _parse_path(self, headers: Headers, name: bytes) -> str:
        """Return the path of a header. Raises InvalidRequest, and WrongKey when the client is not the API."""
        if not self._is_authorized(headers):
            raise WrongKey
        path = headers.get(name, b"").decode("latin-1")
        try:
            self._storage.absolute(path)
        except ValueError as error:
            raise InvalidRequest(f"{name.decode().title()}: must be a path inside the storage.") from error
        return path


def _read_owner(headers: Headers) -> str:
    return headers.get(b"x-owner", b"").decode("latin-1")


def _parse_numbers(headers: Headers, name: bytes, fault: str) -> list[int]:
    """Return the numbers of a header, with commas between them. Raises InvalidRequest with the fault."""
    value = headers.get(name, b"").decode("latin-1")
    if not re.fullmatch(r"\d{1,12}(,\d{1,12})*", value, re.ASCII):
        raise InvalidRequest(fault)
    return [int(number) for number in value.split(",")]


def _log_ids(scope: Message) -> dict[str, str | int]:
    """Return the ids of the API's request."""
    headers = dict(scope["headers"])
    found = {"request": headers.get(b"x-request-id"), "owner": headers.get(b"x-owner")}
    return {name: value.decode("latin-1") for name, value in found.items() if value}


async def _read_images(receive: Receive, sizes: list[int]) -> list[bytes]:
    """Return the parts of the body. Raises InvalidRequest when it does not have the sum of `sizes` bytes."""
    size = sum(sizes)
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        body += message.get("body", b"")
        more = message.get("more_body", False) and len(body) <= size
    if len(body) != size:
        raise InvalidRequest("X-Sizes: must add up to the length of the body.")
    view, ends = memoryview(body), itertools.accumulate(sizes, initial=0)
    return [bytes(view[start:end]) for start, end in itertools.pairwise(ends)]


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

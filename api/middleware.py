"""ASGI middleware: request ids, request metrics, the access log, and a problem for every unhandled error."""

import asyncio
import logging
import re
import time

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.prometheus.requests import RequestMetrics
from api.server import access_log
from api.server.drain import Drain
from service.db import ids
from service.errors import BadRequest, Unavailable
from service.logs import context

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_STOPPING = "The service is stopping; try again in a moment."
_log = logging.getLogger(__name__)


class RequestMiddleware:
    """Gives each request an id, counts, times and logs it, and turns unhandled exceptions into problems."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, drain: Drain) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, responder = time.perf_counter(), _Responder(scope, send, self._drain)
        state = scope.setdefault("state", {})
        state["request_id"] = responder.request_id
        with context.bound(request=responder.request_id):
            try:
                await self._handle(scope, receive, responder)
            finally:
                seconds = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.observe(scope["method"], route, responder.status, seconds)
                if code := responder.replaced_by or state.get("problem_code"):
                    self._metrics.count_problem(responder.status, code)
                access_log.write(scope, responder.status, seconds, responder.body_bytes)

    async def _handle(self, scope: Scope, receive: Receive, responder: "_Responder") -> None:
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # databases cannot store it in a text
            await responder.refuse("The URL contains a NUL character.", scope, receive)
            return
        if scope["http_version"] == "1.1" and sum(name == b"host" for name, _ in scope["headers"]) != 1:
            await responder.refuse("A request needs the header Host, once.", scope, receive)  # RFC 9112, section 3.2
            return
        try:
            await self._app(scope, receive, responder)
        except asyncio.CancelledError:  # the server stops after its grace period
            if responder.status:
                raise
            await responder.send_response(
                problems.from_error(Unavailable(_STOPPING), responder.request_id), scope, receive
            )
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if responder.status:
                raise  # the response has started: only closing the connection signals the error
            await responder.send_response(problems.from_status(500, "", responder.request_id), scope, receive)


class _Responder:
    """Sends the response: adds the request id, and replaces an error in plain text with a problem."""

    def __init__(self, scope: Scope, send: Send, drain: Drain) -> None:
        self.request_id = _get_request_id(scope)
        self._is_head = scope["method"] == "HEAD"  # whose response has no body (RFC 9110, section 9.3.2)
        self._drain = drain
        self.status = 0
        self.body_bytes = 0
        self._send = send
        self.replaced_by = ""  # code of the problem that is sent instead

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            added = [(b"x-request-id", self.request_id.encode()), (b"x-content-type-options", b"nosniff")]
            if self._drain.has_begun:
                added.append((b"connection", b"close"))
            message["headers"] = [*message.get("headers", ()), *added]
            if self.status >= 400 and not (headers := Headers(scope=message)).get("content-type", "").endswith("json"):
                await self._replace(headers)
                return
        elif self._is_head and message.get("body"):
            message = {**message, "body": b""}
        if not self.replaced_by:
            await self._send(message)
            self.body_bytes += len(message.get("body", b""))

    async def refuse(self, detail: str, scope: Scope, receive: Receive) -> None:
        await self.send_response(problems.from_error(BadRequest(detail), self.request_id), scope, receive)

    async def send_response(self, response: Response, scope: Scope, receive: Receive) -> None:
        await response(scope, receive, self)

    async def _replace(self, headers: Headers) -> None:
        """Send a problem instead of the response whose headers these are; its body is dropped."""
        headers_kept = {
            name: headers[name] for name in ("allow", "connection", "content-range", "x-request-id") if name in headers
        }
        response = problems.from_status(self.status, "", self.request_id, headers_kept)
        self.replaced_by = response.code
        await self._send({"type": "http.response.start", "status": self.status, "headers": response.raw_headers})
        body = b"" if self._is_head else response.body
        await self._send({"type": "http.response.body", "body": body})
        self.body_bytes = len(body)


def _get_request_id(scope: Scope) -> str:
    """Return the client's X-Request-ID when it is 1 to 128 printable ASCII characters, else a new id."""
    sent = Headers(scope=scope).get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else ids.new("req")

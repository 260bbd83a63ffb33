"""The edge: what every request passes on its way in and every answer on its way out."""

import asyncio
import logging
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.prometheus import RequestMetrics
from service.db import ids
from service.errors import BadRequest, Unavailable

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_STOPPING = "The service is being stopped; ask again in a moment."
_log = logging.getLogger(__name__)


class RequestMiddleware:
    """Gives each request an id, counts and times it, and turns whatever escapes below into a problem."""

    def __init__(self, app: ASGIApp, counters: RequestMetrics) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, out = time.perf_counter(), _Out(_request_id(scope), send)
        scope.setdefault("state", {})["request_id"] = out.request_id
        try:
            await self._inside(scope, receive, out)
        finally:
            place = getattr(scope.get("route"), "path", "none")
            self._counters.request(scope["method"], place, out.status, time.perf_counter() - started)

    async def _inside(self, scope: Scope, receive: Receive, out: "_Out") -> None:
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # no database keeps it in a text
            error = BadRequest("The address holds a NUL character.")
            await out.whole(problems.from_error(error, out.request_id), scope, receive)
            return
        try:
            await self._app(scope, receive, out)
        except asyncio.CancelledError:  # the server stops, and has waited for us for as long as it would
            if out.status:
                raise
            await out.whole(problems.from_error(Unavailable(_STOPPING), out.request_id), scope, receive)
        except Exception:
            _log.exception("%s %s failed (%s)", scope["method"], scope["path"], out.request_id)
            if out.status:
                raise  # half an answer is out: only closing the connection tells the client
            await out.whole(problems.from_status(500, "", out.request_id), scope, receive)


class _Out:
    """The way out: adds the request id, and rewrites an error that some library answered as plain text."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.status = 0
        self._send = send
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            if self.status >= 400 and not headers.get("content-type", "").endswith("json"):
                await self._replace(headers)
                return
        if not self._replaced:
            await self._send(message)

    async def whole(self, response: Response, scope: Scope, receive: Receive) -> None:
        await response(scope, receive, self)

    async def _replace(self, headers: Headers) -> None:
        """Send a problem in place of the plain answer whose start this was; its body is dropped."""
        self._replaced = True
        kept = {name: headers[name] for name in ("allow", "content-range", "x-request-id") if name in headers}
        response = problems.from_status(self.status, "", self.request_id, kept)
        await self._send({"type": "http.response.start", "status": self.status, "headers": response.raw_headers})
        await self._send({"type": "http.response.body", "body": response.body})


def _request_id(scope: Scope) -> str:
    """The client's own X-Request-ID when it is 1 to 128 printable ASCII characters, else a new one."""
    sent = Headers(scope=scope).get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else ids.new("req")

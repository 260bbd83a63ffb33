"""The HTTP protocol: uvicorn's, with limits for a request's head, trailers and chunk extensions, and with deadlines.

Its parser has no limit and is slow for long headers: one of 60 MB blocked all other requests for six seconds.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api import problems
from api.prometheus.requests import RequestMetrics
from api.server import access_log
from api.server.connections import Connections
from service.db import ids

MAX_HEAD_BYTES = 64 * 1024  # of bytes that are no body, when a read ends
_FRAMING = 16  # bytes of framing per byte of a chunked body: six in chunks of one byte
_DRAIN_SECONDS = 5.0  # for the rest of a body that is not read, so that the client receives the response


class HttpProtocol(HttpToolsProtocol):
    """Responds with a problem to a head that is too long, too slow or invalid, and closes the connection."""

    def __init__(self, *arguments: Any, connections: Connections, metrics: RequestMetrics, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.address = ""
        self._connections = connections
        self._metrics = metrics
        self._limits = connections.limits
        self._requests = 0  # whose heads are complete and whose responses are not
        self._in_message = self._in_head = False
        self._framing = 0  # bytes of the current message that are no body
        self._since = self.loop.time()  # when the present phase began, or its last progress
        self._blocked_since: float | None = None  # the write buffer is full
        self._is_new = True  # no byte was received
        self._is_stopping = False  # the server shuts down

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if not self._connections.add(self):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "There are too many connections; try again in a moment.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def close(self) -> None:
        self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection when no request is in progress on it; one whose head is incomplete is in progress."""
        self._is_stopping = True
        if self._requests or not self._in_message:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        self._framing += len(data)
        super().data_received(data)
        if self._in_message and self._framing > MAX_HEAD_BYTES and not self.transport.is_closing():
            what = "The request line and the headers are" if self._in_head else "The trailers or chunk extensions are"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"{what} too long.")

    def check_deadline(self, now: float) -> None:
        """Close the connection if its client has made no progress within the deadline of the present phase."""
        if self._blocked_since is not None or self.transport.is_closing():  # the client does not read the response
            if now > (self._blocked_since or self._since) + self._limits.body_seconds:
                self.transport.abort()
        elif self._requests:
            self._check_body(now)
        elif self._in_head:
            if now > self._since + self._limits.head_seconds:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request's head was not received in time.")
        elif now > self._since + self._idle_seconds():
            self.transport.close()

    def _check_body(self, now: float) -> None:
        if not self._in_message or not self.transport.is_reading():
            self._since = now  # the client waits for the service
        elif now > self._since + self._limits.body_seconds:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The body was not received in time.")

    def _idle_seconds(self) -> float:
        if self._in_message:  # a body that is not read
            return min(_DRAIN_SECONDS, self._limits.body_seconds)
        return self._limits.head_seconds if self._is_new else self._limits.idle_seconds

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._in_message = self._in_head = True
        self._is_new = False
        self._framing, self._since = 0, self.loop.time()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers are dropped: they are parsed after the request has begun
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._framing, self._since = 0, self.loop.time()
        self._requests += 1
        self._connections.begin_request(self)
        super().on_headers_complete()
        if self._is_stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._framing = max(0, self._framing - _FRAMING * len(body))
        if self._requests:
            self._since = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._framing = 0
        super().on_message_complete()
        if self._is_stopping and not self._requests:
            self.transport.close()

    # Callbacks of the response and the transport

    def on_response_complete(self) -> None:
        self._requests -= 1
        if not self._requests:
            self._since = self.loop.time()
            self._connections.end_request(self)
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._blocked_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._blocked_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Send a problem, unless a response was begun, and close the connection."""
        if self._requests and self.cycle.response_started:
            self.transport.abort()
            return
        request_id = ids.new("req")
        headers = {"X-Request-ID": request_id, "Connection": "close", "X-Content-Type-Options": "nosniff"}
        response = problems.from_status(status, detail, request_id, headers)
        self._metrics.count_problem(status, response.code)
        lines = [b"%b: %b" % header for header in response.raw_headers]
        head = b"\r\n".join([f"HTTP/1.1 {status.value} {status.phrase}".encode(), *lines, b"", b""])
        access_log.write_refused(status.value, self.address, request_id)
        self.transport.write(head + bytes(response.body))
        self.transport.close()

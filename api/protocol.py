"""How requests are read from a connection: uvicorn's protocol, with a bound on a request's head.

Its parser has no bound, and takes long over a long header: 60 MB of one held every other request up for six seconds.
"""

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api import problems
from service.db import ids

MAX_HEAD_BYTES = 64 * 1024  # beyond the first read, which may also hold the end of the request before


class Protocol(HttpToolsProtocol):
    """Answers a head that is too long, or that is none, with a problem, and hangs up."""

    _in_head = False
    _read = 0  # bytes of this head, but for the first read

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._read += len(data)
            if self._read > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The address and the headers are too long.")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head, self._read = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        request_id = ids.new("req")
        headers = {"X-Request-ID": request_id, "Connection": "close"}
        answer = problems.from_status(status, detail, request_id, headers)
        lines = [b"%b: %b" % header for header in answer.raw_headers]
        head = b"\r\n".join([f"HTTP/1.1 {status.value} {status.phrase}".encode(), *lines, b"", b""])
        self.transport.write(head + bytes(answer.body))
        self.transport.close()

"""The HTTP protocol: uvicorn's, with a size limit for a request's head.

Its parser has no limit and is slow for long headers: one of 60 MB blocked all other requests for six seconds.
"""

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api import problems
from service.db import ids

MAX_HEAD_BYTES = 64 * 1024  # after the first read, which may also contain the end of the previous request


class HttpProtocol(HttpToolsProtocol):
    """Responds with a problem to a head that is too long or invalid, and closes the connection."""

    _in_head = False
    _read = 0  # bytes of this head after the first read

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._read += len(data)
            if self._read > MAX_HEAD_BYTES:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request line and the headers are too long."
                )
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
        response = problems.from_status(status, detail, request_id, headers)
        lines = [b"%b: %b" % header for header in response.raw_headers]
        head = b"\r\n".join([f"HTTP/1.1 {status.value} {status.phrase}".encode(), *lines, b"", b""])
        self.transport.write(head + bytes(response.body))
        self.transport.close()

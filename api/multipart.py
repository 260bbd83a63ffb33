"""Multipart forms: parses multipart/form-data from chunks (RFC 7578); a subclass stores the parts."""

import re
from abc import ABC, abstractmethod
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequest, InvalidRequest
from ssl_core.errors import Fault, json_pointer

_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_EXTENDED = re.compile(rb""";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^';]*'([^\s;"]+)""", re.IGNORECASE)


def parse_content_type(request: Request) -> tuple[bytes, bytes]:
    """Return the media type of the body and its `boundary` parameter, which may be empty."""
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    return media_type, options.get(b"boundary", b"")


def is_declared_larger(request: Request, limit: int) -> bool:
    """Whether the body has more than `limit` bytes by its Content-Length."""
    declared = request.headers.get("content-length", "")
    return declared.isdecimal() and int(declared[:20]) > limit


class MultipartForm(ABC):
    """A form that is parsed chunk by chunk. Its parts are passed to `begin_part`, `add_data` and `end_part`."""

    def __init__(self, boundary: bytes) -> None:
        """Raises BadRequest when the boundary is missing or too long."""
        if not boundary:
            raise BadRequest("The Content-Type has no multipart boundary.")
        names = ("header_field", "header_value", "header_end", "headers_finished", "part_data", "part_end", "end")
        callbacks = {f"on_{name}": getattr(self, f"_{name}") for name in names}
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a TypedDict, built by name
        except FormParserError as error:
            raise BadRequest(f"The multipart boundary is invalid: {error}.") from error
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._ended = False

    @abstractmethod
    def begin_part(self, name: str, filename: str) -> None: ...

    @abstractmethod
    def add_data(self, data: memoryview) -> None: ...

    @abstractmethod
    def end_part(self) -> None: ...

    def feed(self, chunk: bytes) -> None:
        """Parse the next chunk of the body. Raises BadRequest, and what the subclass raises."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"The body is not valid multipart/form-data: {error}.") from error

    def check_ended(self) -> None:
        """Raise BadRequest unless the last boundary was parsed."""
        if not self._ended:
            raise BadRequest("The multipart body ends before its last boundary.")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name, filename = (options.get(key, b"").decode("utf-8", "replace") for key in (b"name", b"filename"))
        filename = _decode_extended_filename(self._disposition) or filename
        self._disposition = b""
        self.begin_part(name, filename)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.add_data(memoryview(data)[start:end])

    def _part_end(self) -> None:
        self.end_part()

    def _end(self) -> None:
        self._ended = True


def _decode_extended_filename(disposition: bytes) -> str:
    """Return the `filename*` of a Content-Disposition (RFC 6266, encoded by RFC 5987), or "" without a valid one.

    RFC 7578 forbids it in forms, but some clients send no other name for a file whose name is not ASCII.
    """
    found = _EXTENDED.search(_QUOTED.sub(b'""', disposition))
    try:
        return unquote_to_bytes(found[2]).decode(found[1].decode()) if found else ""
    except UnicodeDecodeError:
        return ""


def invalid_field(name: str, code: str, detail: str) -> InvalidRequest:
    """Return the error of the field `name`."""
    return InvalidRequest(detail, errors=[Fault(pointer=json_pointer(name[:64]), code=code, detail=detail)])


def duplicate_field(name: str) -> InvalidRequest:
    """Return the error of a form with two parts of one name, of which it can have one."""
    return invalid_field(name, "doubled", f"The form has more than one part called `{name}`.")

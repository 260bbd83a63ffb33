"""JSON requests: a route class with strict parsing (no NaN, no lone surrogates, limited size, values and nesting).

It refuses unknown query parameters, too.
"""

from collections.abc import Callable, Coroutine, Mapping
from itertools import islice
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from api.auth.scopes import find_scope
from api.deps import check_key
from api.problems import describe_unknown
from service.errors import BadRequest, InvalidRequest, TooLarge, UnsupportedMedia
from ssl_core.errors import Fault

MAX_DEPTH = 32
MAX_STRUCTURE_BYTES = 2**24  # of the values of a body in memory, in addition to the characters of its strings
_PAGING = ("after", "limit")  # accepted everywhere: clients page through every list alike
_MAX_EXACT = 2**53  # beyond it, floats do not have every integer
_MAX_PARAMETERS = 100  # that are checked


class JsonRoute(APIRoute):
    """A route that refuses unknown query parameters, and whose body, if any, is JSON of at most `max_body_bytes`.

    The key is checked before the body is read: FastAPI reads it before it resolves the dependencies.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = [*_PAGING, *(field.alias for field in self.dependant.query_params)]
        scope = find_scope(self.endpoint) if self.body_field is not None else None

        async def handle_json(request: Request) -> Response:
            if request.scope["query_string"]:
                _refuse_unknown(request.query_params, known)
            if scope is not None:
                await check_key(request, scope)
            return await handle(JsonRequest(request.scope, request.receive))

        return handle_json


class JsonRequest(Request):
    """A request that raises the service's errors for an invalid body."""

    async def body(self) -> bytes:
        """Raises TooLarge before the limit is exceeded, UnsupportedMedia for a Content-Type other than JSON."""
        if not hasattr(self, "_body"):
            self._body = await self._read(self.app.state.settings.max_body_bytes)
            if self._body and not _is_json(self.headers.get("content-type", "")):
                raise UnsupportedMedia("Send the body as Content-Type: application/json.")
        return self._body

    async def json(self) -> Any:
        """Raises BadRequest, and TooLarge for too many values."""
        body = await self.body()
        check_structure(body)
        value = parse(body)
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH or b"\\u0000" in body:
            _check_value(value)
        return to_integers(value) if b"." in body or b"e" in body or b"E" in body else value

    async def _read(self, limit: int) -> bytes:
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise TooLarge(f"The body is larger than {limit} bytes.")
        chunks, size = [], 0
        try:
            async for chunk in self.stream():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"The body is larger than {limit} bytes.")
                chunks.append(chunk)
        except ClientDisconnect as error:
            raise BadRequest("The body ended early.") from error
        return b"".join(chunks)


def check_structure(body: bytes | bytearray) -> int:
    """Return an upper bound of the bytes that the values of a document need, beside the characters of its strings.

    It counts separators, those inside strings too, and multiplies them by the sizes of CPython's objects. Raises
    TooLarge beyond MAX_STRUCTURE_BYTES, before any value is built.
    """
    containers = body.count(b"[") + body.count(b"{")
    size = 240 * containers + 130 * body.count(b":") + 72 * body.count(b",")
    if size > MAX_STRUCTURE_BYTES:
        raise TooLarge("The body has too many JSON values.")
    return size


def parse(body: bytes | bytearray) -> Any:
    """Return the value of a document. Raises BadRequest."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error.msg} (byte {error.pos}).") from error


def to_integers(value: Any) -> Any:
    """Return the value with whole numbers as integers: 1.0 and 1e2 are integers in a JSON schema."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_EXACT:
        return int(value)
    if isinstance(value, list):
        return [to_integers(item) for item in value]
    if isinstance(value, dict):
        return {name: to_integers(item) for name, item in value.items()}
    return value


def _refuse_unknown(parameters: Mapping[str, str], known: list[str]) -> None:
    """Raise InvalidRequest: a misspelt filter would match everything."""
    faults = [
        Fault(pointer=name[:64], code="extra_forbidden", detail=describe_unknown("parameter", name, known))
        for name in islice(parameters, _MAX_PARAMETERS)
        if name not in known
    ]
    if faults:
        raise InvalidRequest("; ".join(fault["detail"] for fault in faults[:3]), errors=faults)


def _is_json(content_type: str) -> bool:
    kind = content_type.split(";")[0].strip().lower()
    return kind.startswith("application/") and (kind == "application/json" or kind.endswith("+json"))


def _check_value(value: Any) -> None:
    """Raise BadRequest for deep nesting, and for the NUL character, which databases cannot store in a text."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str) and "\0" in item:
                raise BadRequest("The body contains a NUL character.")
            inner += (
                [*item.keys(), *item.values()] if isinstance(item, dict) else item if isinstance(item, list) else []
            )
        level = inner

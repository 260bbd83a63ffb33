"""JSON bodies: read once, up to a limit, by a parser that takes no NaN, no lone surrogate and no endless nesting.

And the parameters of an address, which are those that its route knows.
"""

from collections.abc import Callable, Coroutine, Mapping
from itertools import islice
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from api.problems import unknown
from service.errors import BadRequest, InvalidRequest, TooLarge, UnsupportedMedia
from ssl_core.errors import Fault

MAX_DEPTH = 32
_PAGING = ("after", "limit")  # taken everywhere: whoever reads a list need not know that it has one page
_MOST_PARAMETERS = 100  # that are looked at


class JsonRoute(APIRoute):
    """A route that refuses parameters it does not know, and whose body, if any, is JSON of at most `max_body_bytes`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = [*_PAGING, *(field.alias for field in self.dependant.query_params)]

        async def handle_json(request: Request) -> Response:
            if request.scope["query_string"]:
                _refuse_unknown(request.query_params, known)
            return await handle(JsonRequest(request.scope, request.receive))

        return handle_json


class JsonRequest(Request):
    """A request that raises the service's own errors for a body that cannot be read."""

    async def body(self) -> bytes:
        """Raises TooLarge before more than the limit is held, UnsupportedMedia when it is not said to be JSON."""
        if not hasattr(self, "_body"):
            self._body = await self._read(self.app.state.settings.max_body_bytes)
            if self._body and not _is_json(self.headers.get("content-type", "")):
                raise UnsupportedMedia("Send the body as Content-Type: application/json.")
        return self._body

    async def json(self) -> Any:
        """Raises BadRequest."""
        body = await self.body()
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"The body is not JSON: {error.msg} (byte {error.pos}).") from error
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH or b"\\u0000" in body:
            _inspect(value)
        return value

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


def _refuse_unknown(parameters: Mapping[str, str], known: list[str]) -> None:
    """A filter that is misspelt would let everything through. Raises InvalidRequest."""
    faults = [
        Fault(pointer=name[:64], code="extra_forbidden", detail=unknown("parameter", name, known))
        for name in islice(parameters, _MOST_PARAMETERS)
        if name not in known
    ]
    if faults:
        raise InvalidRequest("; ".join(fault["detail"] for fault in faults[:3]), errors=faults)


def _is_json(content_type: str) -> bool:
    kind = content_type.split(";")[0].strip().lower()
    return kind.startswith("application/") and (kind == "application/json" or kind.endswith("+json"))


def _inspect(value: Any) -> None:
    """Refuse what is nested too deeply to be ours, and the NUL that no database keeps in a text."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str) and "\0" in item:
                raise BadRequest("The body holds a NUL character.")
            inner += (
                [*item.keys(), *item.values()] if isinstance(item, dict) else item if isinstance(item, list) else []
            )
        level = inner

"""Responses: JSON by orjson, and pages of lists."""

from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import Request
from fastapi.responses import Response

CLIENT_CLOSED_REQUEST = 499  # for the request metrics; the client has disconnected


class JSONResponse(Response):
    """A JSON response from plain values, without validation by a response model."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def page(data: list[dict[str, Any]], has_more: bool, after: str | int | None) -> JSONResponse:
    """Return one page of a list; `after` is the `after` of the next page."""
    return JSONResponse({"object": "list", "data": data, "has_more": has_more, "next": after})


def has_current_etag(request: Request, etag: str) -> bool:
    """Whether the client has the response of this ETag already (If-None-Match, RFC 9110 section 13.1.2)."""
    tags = request.headers.get("if-none-match")
    return tags is not None and (tags == "*" or etag in (tag.strip().removeprefix("W/") for tag in tags.split(",")))


def rfc3339(seconds: float | None) -> str | None:
    """Format Unix seconds as RFC 3339 UTC with milliseconds; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"

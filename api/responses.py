"""Answers: what the API sends back, as JSON by orjson or as a file of the storage."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from fastapi import Request
from fastapi.responses import FileResponse, Response


class JSONResponse(Response):
    """A JSON answer from plain values; nothing is validated twice."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def page(data: list[dict[str, Any]], has_more: bool, after: str | int | None) -> JSONResponse:
    """One page of a list; `after` is what to ask for next."""
    return JSONResponse({"object": "list", "data": data, "has_more": has_more, "next": after})


def file(request: Request, path: Path, media_type: str, filename: str, sha256: str | None = None) -> Response:
    """The file at `path`, in parts if so asked (Range); its SHA-256, where known, is its ETag and Repr-Digest."""
    headers = {"Cache-Control": "private, max-age=0, must-revalidate", "X-Content-Type-Options": "nosniff"}
    if sha256 is not None:
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        headers |= {"ETag": f'"{sha256}"', "Repr-Digest": f"sha-256=:{digest}:"}
        if unchanged(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
    return FileResponse(path, headers=headers, media_type=media_type, filename=filename)


def unchanged(request: Request, etag: str) -> bool:
    """Tell whether the client already holds the answer that `etag` names (If-None-Match, RFC 9110 section 13.1.2)."""
    held = request.headers.get("if-none-match")
    return held is not None and (held == "*" or etag in (tag.strip().removeprefix("W/") for tag in held.split(",")))


def rfc3339(seconds: float | None) -> str | None:
    """Unix seconds as RFC 3339 UTC with milliseconds; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"

"""Problems: every error as RFC 9457 `application/problem+json`, with a code, a sentence and a request id."""

import difflib
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.db.session import is_disk_full, is_unreachable
from service.errors import BadRequest, DatabaseFull, Error, InvalidRequest, Unavailable
from ssl_core.errors import Fault, json_pointer

MEDIA_TYPE = "application/problem+json"
_STATUSES = frozenset(HTTPStatus)
_TITLES = {413: "Too large", 416: "Range not satisfiable", 500: "Internal error"}  # Python's own change
_log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Make `app` answer every exception with a problem; `api.middleware` is the net below."""
    app.add_exception_handler(Error, _error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    for lost in (DBAPIError, PoolTimeout):
        app.add_exception_handler(lost, _database)


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    errors: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer that says what went wrong."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": list(errors),
    }
    return Response(orjson.dumps(body), status, headers, media_type=MEDIA_TYPE)


def from_error(error: Error, request_id: str) -> Response:
    """The answer for one of the service's own errors."""
    headers = {"WWW-Authenticate": 'Bearer realm="twoviews"'} if error.status == HTTPStatus.UNAUTHORIZED else {}
    retry_after = error.retry_after or (1 if isinstance(error, Unavailable) else None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return problem(error.status, error.code, error.title, error.detail, request_id, error.errors, headers)


def from_status(status: int, detail: str, request_id: str, headers: dict[str, str] | None = None) -> Response:
    """The answer for an error that has nothing but a status."""
    title = _TITLES.get(status) or (HTTPStatus(status).phrase.capitalize() if status in _STATUSES else "Not answered")
    code = title.lower().replace(" ", "_").replace("-", "_")
    return problem(status, code, title, detail or f"{title}.", request_id, headers=headers)


def request_id(request: Request) -> str:
    return str(request.state.request_id)


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, Error)
    return from_error(error, request_id(request))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, Error):  # FastAPI wraps what the reading of a body raises
        return from_error(error.__cause__, request_id(request))
    headers = dict(error.headers or {})
    detail = error.detail + "."
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"There is nothing at {request.url.path[:200]}."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request)) or headers.get("Allow", "")
        detail = f"{request.url.path[:200]} takes {headers['Allow']}."
    return from_status(error.status_code, detail, request_id(request), headers)


async def _gone(request: Request, error: Exception) -> Response:
    return from_error(BadRequest("The body ended early."), request_id(request))  # to nobody


async def _database(request: Request, error: Exception) -> Response:
    if not is_unreachable(error):
        raise error  # a fault of ours, for the edge to tell
    _log.warning("The database does not answer: %s", error)
    told = (
        DatabaseFull() if is_disk_full(error) else Unavailable("The database does not answer; try again in a moment.")
    )
    return from_error(told, request_id(request))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    known = _body_fields(request)
    faults = [_fault(item, known) for item in error.errors()]
    sentence = "; ".join(dict.fromkeys(f"{fault['pointer'] or 'body'}: {fault['detail']}" for fault in faults[:3]))
    return from_error(InvalidRequest(sentence, errors=faults[:100]), request_id(request))


def _fault(item: dict[str, Any], known: list[str]) -> Fault:
    """A pydantic error as a fault: its place is a pointer into the body, or the name of a parameter."""
    where, *path = item["loc"]
    if where == "body":
        pointer = json_pointer(*path)
    else:
        pointer = str(path[0]) if path else where
    detail = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        detail = unknown("field", str(path[-1]), known)
    if item["type"] == "missing" and not path:
        detail = "A JSON body is needed"
    return Fault(pointer=pointer[:300], code=item["type"], detail=detail)


def unknown(what: str, name: str, known: list[str]) -> str:
    """The sentence for a field or parameter that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name[:64], known, n=1)
    return f"There is no {what} `{name[:64]}` here" + (f"; did you mean `{near[0]}`?" if near else ".")


def _body_fields(request: Request) -> list[str]:
    """The top-level fields of the body that this route takes."""
    field = getattr(request.scope.get("route"), "body_field", None)
    model = getattr(getattr(field, "field_info", None), "annotation", None)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _allowed(request: Request) -> list[str]:
    """Every method that some route takes at this path; Starlette names those of the first route only."""
    path = request.url.path
    found = {method for regex, methods in request.app.state.places if regex.match(path) for method in methods}
    return sorted(found)

"""Problem details (RFC 9457): every error as `application/problem+json`, with a code and a request id."""

import difflib
import logging
from collections.abc import Mapping, Sequence
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
from starlette.types import Receive, Scope, Send

from service.db.session import is_damaged, is_disk_full, is_unreachable
from service.errors import BadRequest, DatabaseDamaged, DatabaseFull, Error, InvalidRequest, Unavailable
from ssl_core.errors import Fault, json_pointer

MEDIA_TYPE = "application/problem+json"
_STATUSES = frozenset(HTTPStatus)
_TITLES = {
    413: "Too large",
    416: "Range not satisfiable",
    500: "Internal error",
}  # whose phrases differ between Python versions
_log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Register the exception handlers; `api.middleware` handles what they do not."""
    app.add_exception_handler(Error, _handle_error)
    app.add_exception_handler(RequestValidationError, _handle_invalid)
    app.add_exception_handler(HTTPException, _handle_http)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    for kind in (DBAPIError, PoolTimeout):
        app.add_exception_handler(kind, _handle_database)


class ProblemResponse(Response):
    """The response of a problem. Its `code` is left in the request's state, for the metrics."""

    code = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["problem_code"] = self.code
        await super().__call__(scope, receive, send)


def build(
    status: int,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    errors: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
) -> ProblemResponse:
    """Return the response of a problem."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": list(errors),
    }
    response = ProblemResponse(orjson.dumps(body), status, headers, media_type=MEDIA_TYPE)
    response.code = code
    return response


def from_error(error: Error, request_id: str) -> ProblemResponse:
    """Return the response for an error of the service."""
    headers = {"WWW-Authenticate": 'Bearer realm="twoviews"'} if error.status == HTTPStatus.UNAUTHORIZED else {}
    retry_after = error.retry_after or (1 if isinstance(error, Unavailable) else None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return build(error.status, error.code, error.title, error.detail, request_id, error.errors, headers)


def from_status(status: int, detail: str, request_id: str, headers: dict[str, str] | None = None) -> ProblemResponse:
    """Return the response for a status without further information."""
    title = _TITLES.get(status) or (HTTPStatus(status).phrase.capitalize() if status in _STATUSES else "Not answered")
    code = title.lower().replace(" ", "_").replace("-", "_")
    return build(status, code, title, detail or f"{title}.", request_id, headers=headers)


def get_request_id(request: Request) -> str:
    return str(request.state.request_id)


async def _handle_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, Error)
    return from_error(error, get_request_id(request))


async def _handle_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, Error):  # FastAPI wraps errors raised while it reads the body
        return from_error(error.__cause__, get_request_id(request))
    headers = dict(error.headers or {})
    detail = error.detail + "."
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"There is nothing at {request.url.path[:200]}."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request)) or headers.get("Allow", "")
        detail = f"{request.url.path[:200]} allows {headers['Allow']}."
    return from_status(error.status_code, detail, get_request_id(request), headers)


async def _handle_disconnect(request: Request, error: Exception) -> Response:
    return from_error(BadRequest("The body ended early."), get_request_id(request))  # not received, the client is gone


async def _handle_database(request: Request, error: Exception) -> Response:
    if not is_unreachable(error):
        raise error  # a bug: api.middleware logs it
    _log.warning("The database does not answer: %s", error)
    unavailable = Unavailable("The database does not answer; try again in a moment.")
    if is_disk_full(error):
        unavailable = DatabaseFull()
    elif is_damaged(error):
        unavailable = DatabaseDamaged()
    return from_error(unavailable, get_request_id(request))


async def _handle_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    known = _get_body_fields(request)
    faults = [_to_fault(item, known, error.body) for item in error.errors()]
    sentence = "; ".join(dict.fromkeys(f"{fault['pointer'] or 'body'}: {fault['detail']}" for fault in faults[:3]))
    return from_error(InvalidRequest(sentence, errors=faults[:100]), get_request_id(request))


def _to_fault(item: dict[str, Any], known: list[str], body: Any) -> Fault:
    """Convert a pydantic error; the pointer is a JSON pointer into the body, or the name of a parameter."""
    source, *path = item["loc"]
    parameter = str(path[0]) if path else source
    if source == "body" and isinstance(body, Mapping):
        path = _drop_tags(path, body, item["type"] == "missing")
    pointer = json_pointer(*path) if source == "body" else parameter
    detail = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        detail = describe_unknown("field", str(path[-1]), known)
    if item["type"] == "missing" and not path:
        detail = "A JSON body is needed"
    return Fault(pointer=pointer[:300], code=item["type"], detail=detail)


def _drop_tags(path: list[int | str], body: Any, is_missing: bool) -> list[int | str]:
    """Return pydantic's path without what is not in the body: the tags of the members of unions."""
    place: list[int | str] = []
    for number, part in enumerate(path, 1):
        is_index = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if is_index or (isinstance(body, Mapping) and part in body):
            body = body[part]
            place.append(part)
        elif is_missing and number == len(path):
            place.append(part)
    return place


def describe_unknown(what: str, name: str, known: list[str]) -> str:
    """Return the sentence for an unknown field or parameter, with the closest known one."""
    close = difflib.get_close_matches(name[:64], known, n=1)
    return f"There is no {what} `{name[:64]}` here" + (f"; did you mean `{close[0]}`?" if close else ".")


def _get_body_fields(request: Request) -> list[str]:
    """Return the top-level fields of the route's body."""
    field = getattr(request.scope.get("route"), "body_field", None)
    model = getattr(getattr(field, "field_info", None), "annotation", None)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes at this path; Starlette returns those of the first route only.

    A path without parameters, such as /jobs/compare, has only its own.
    """
    path = request.url.path
    found = [(regex.groups, methods) for regex, methods in request.app.state.routes if regex.match(path)]
    fewest = min((groups for groups, _ in found), default=0)
    return sorted({method for groups, methods in found if groups == fewest for method in methods})

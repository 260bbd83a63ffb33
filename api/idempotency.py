"""Idempotent requests: a POST with an Idempotency-Key is processed once, and its stored response is replayed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import Depends, Header, Request

from api.deps import SettingsDep, UnitOfWork
from api.responses import JSONResponse
from service import idempotency

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Created:
    """The resource that a request created: the body of the response, and its URL."""

    body: Json
    location: str | None = None


def _identity(body: Json) -> Json:
    return body


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """The key of a request, and its method and path."""

    key: str | None
    target: str
    hours: float

    def __call__(
        self,
        unit: UnitOfWork,
        content: Any,
        create: Callable[[UnitOfWork], Created],
        status: int,
        render: Callable[[Json], Json] = _identity,
    ) -> JSONResponse:
        """Return the response for what `create` creates, or the stored one of an earlier request with this key.

        content: the content of the request; the same key with another content raises IdempotencyMismatch.
        create: its result is stored in the same transaction. render: turns a stored body into that of the response.
        """
        if self.key is None:
            return _build_response(create(unit), status, render)
        fingerprint = hashlib.sha256(orjson.dumps([self.target, content], option=orjson.OPT_SORT_KEYS)).hexdigest()
        stored = idempotency.find_response(unit.session, unit.tenant_id, self.key, fingerprint, self.hours)
        if stored is not None:
            response = _build_response(Created(stored.body, stored.location), stored.status, render)
            response.headers["Idempotent-Replayed"] = "true"
            return response
        created = create(unit)
        stored = idempotency.StoredResponse(status, created.location, created.body)
        idempotency.store_response(unit.session, unit.tenant_id, self.key, fingerprint, stored)
        return _build_response(created, status, render)


def _build_response(created: Created, status: int, render: Callable[[Json], Json]) -> JSONResponse:
    headers = {"Location": created.location} if created.location else None
    return JSONResponse(render(created.body), status, headers)


async def _get_idempotent_request(
    request: Request,
    settings: SettingsDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[\x21-\x7e]{1,255}$", description="Any unique text; the same for retries of the same request."
        ),
    ] = None,
) -> IdempotentRequest:
    return IdempotentRequest(idempotency_key, f"{request.method} {request.url.path}", settings.idempotency_hours)


Idempotent = Annotated[IdempotentRequest, Depends(_get_idempotent_request)]

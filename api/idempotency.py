"""Replay: a POST with an Idempotency-Key does its work once, and answers the same however often it is sent."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import Depends, Header, Request

from api.deps import SettingsDep, Unit
from api.responses import JSONResponse
from service import idempotency

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """What a request made: the body to answer with, and where the thing is found."""

    body: Json
    location: str | None = None


def _as_it_is(body: Json) -> Json:
    return body


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """The request's key, and where it was sent."""

    key: str | None
    place: str
    hours: float

    def __call__(
        self,
        unit: Unit,
        asked: Any,
        make: Callable[[Unit], Made],
        status: int,
        shown: Callable[[Json], Json] = _as_it_is,
    ) -> JSONResponse:
        """Return what `make` made, or what it made the first time that this key came.

        `asked` is all that the request says: the same key with another is an IdempotencyMismatch. What `make` returns
        is kept in the transaction that did the work; `shown` turns it into the answer, each time.
        """
        if self.key is None:
            return _answer(make(unit), status, shown)
        fingerprint = hashlib.sha256(orjson.dumps([self.place, asked], option=orjson.OPT_SORT_KEYS)).hexdigest()
        known = idempotency.find_response(unit.session, unit.tenant_id, self.key, fingerprint, self.hours)
        if known is not None:
            answer = _answer(Made(known.body, known.location), known.status, shown)
            answer.headers["Idempotent-Replayed"] = "true"
            return answer
        made = make(unit)
        kept = idempotency.StoredResponse(status, made.location, made.body)
        idempotency.store_response(unit.session, unit.tenant_id, self.key, fingerprint, kept)
        return _answer(made, status, shown)


def _answer(made: Made, status: int, shown: Callable[[Json], Json]) -> JSONResponse:
    return JSONResponse(shown(made.body), status, {"Location": made.location} if made.location else None)


async def _once(
    request: Request,
    config: SettingsDep,
    idempotency_key: Annotated[
        str | None, Header(pattern=r"^[\x21-\x7e]{1,255}$", description="Any text of yours, new for each new request.")
    ] = None,
) -> IdempotentRequest:
    return IdempotentRequest(idempotency_key, f"{request.method} {request.url.path}", config.idempotency_hours)


Idempotent = Annotated[IdempotentRequest, Depends(_once)]

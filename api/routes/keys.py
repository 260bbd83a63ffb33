"""Routes of /keys. A secret is never stored, not even in the stored response of an idempotent request."""

import hashlib
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from api import responses, schemas, serializers
from api.deps import AdminCaller, UnitOfWork
from api.idempotency import Created, Idempotent
from api.json_body import JsonRoute
from api.responses import JSONResponse
from service import keys

router = APIRouter(tags=["keys"], route_class=JsonRoute)
_LATER = ("last_used_at", "revoked_at")  # fields that a new key does not have
KeyId = Annotated[str, Path(description="A `key_` id.", examples=["key_01k"])]


@router.post("/keys", status_code=201, response_model=schemas.MadeKey, summary="Create a key")
def create(request: Request, body: schemas.NewKey, caller: AdminCaller, respond: Idempotent) -> JSONResponse:
    """Create another key of the same owner. A repeated request with the same key returns the secret again.

    A key gives at most its own scopes, and none that expires later than itself; by default it gives both as they are.
    """
    authorization = request.headers["authorization"]

    def create_key(unit: UnitOfWork) -> Created:
        granted = keys.grant(unit.session, unit.identity, body.scopes, body.expires_at, body.expires_in_days)
        key, secret = keys.create(
            unit.session, unit.tenant_id, body.name, scopes=granted.scopes, expires_at=granted.expires_at
        )
        fields = {name: value for name, value in serializers.key(key).items() if name not in _LATER}
        unit.record("key.create", key.id, **{name: fields[name] for name in ("name", "scopes", "expires_at")})
        return Created({**fields, "sealed": _encrypt(secret, authorization)})

    def with_secret(stored: dict[str, Any]) -> dict[str, Any]:
        return {
            **{name: value for name, value in stored.items() if name != "sealed"},
            "key": _decrypt(stored["sealed"], authorization),
        }

    with caller.writing() as unit:
        response = respond(unit, [unit.key_id, body.model_dump()], create_key, 201, with_secret)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.get("/keys", response_model=schemas.KeyList, summary="List keys, newest first")
def list_(caller: AdminCaller) -> JSONResponse:
    """All keys of the owner, revoked ones included."""
    with caller.reading() as unit:
        return responses.page([serializers.key(key) for key in keys.list_(unit.session, unit.tenant_id)], False, None)


@router.delete("/keys/{key_id}", status_code=204, response_class=Response, summary="Revoke a key")
def revoke(key_id: KeyId, caller: AdminCaller) -> Response:
    """The key is refused from now on. A key can revoke itself."""
    with caller.writing() as unit:
        key = keys.revoke(unit.session, unit.tenant_id, key_id)
        unit.record("key.revoke", key.id, name=key.name)
    return Response(status_code=204)


def _encrypt(secret: str, authorization: str) -> str:
    """Return the secret under a one-time pad, which is derived from the request's own key and a nonce."""
    nonce = secrets.token_bytes(16)
    return nonce.hex() + _xor(secret.encode(), _derive_pad(nonce, authorization)).hex()


def _decrypt(sealed: str, authorization: str) -> str:
    nonce, ciphertext = bytes.fromhex(sealed[:32]), bytes.fromhex(sealed[32:])
    return _xor(ciphertext, _derive_pad(nonce, authorization)).decode()


def _derive_pad(nonce: bytes, authorization: str) -> bytes:
    key = authorization.split()[-1].encode()
    return hashlib.blake2b(nonce, key=hashlib.sha512(b"pad" + key).digest(), person=b"twoviews keys").digest()


def _xor(text: bytes, pad: bytes) -> bytes:
    assert len(text) <= len(pad), "the pad is shorter than the secret"
    return bytes(a ^ b for a, b in zip(text, pad, strict=False))

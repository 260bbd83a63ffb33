"""Keys over HTTP. A secret is shown once and stored nowhere, not even where answers are kept to be repeated."""

import hashlib
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from api import responses, schemas, serializers
from api.deps import Caller, Unit
from api.idempotency import Idempotent, Made
from api.json_body import JsonRoute
from api.responses import JSONResponse
from service import keys

router = APIRouter(tags=["keys"], route_class=JsonRoute)
KeyId = Annotated[str, Path(description="A `key_` id.", examples=["key_01k"])]


@router.post("/keys", status_code=201, response_model=schemas.MadeKey, summary="Make a key")
def create(request: Request, body: schemas.NewKey, caller: Caller, once: Idempotent) -> JSONResponse:
    """Make another key for the same owner. A repeated request shows the secret again only to the key that asked."""
    mine = request.headers["authorization"]

    def make(unit: Unit) -> Made:
        key, secret = keys.create(unit.session, unit.tenant_id, body.name)
        made = {name: value for name, value in serializers.key(key).items() if name != "revoked_at"}
        return Made({**made, "sealed": _seal(secret, mine)})

    def shown(kept: dict[str, Any]) -> dict[str, Any]:
        return {**{name: value for name, value in kept.items() if name != "sealed"}, "key": _open(kept["sealed"], mine)}

    with caller.writing() as unit:
        return once(unit, [unit.key_id, body.name], make, 201, shown)


@router.get("/keys", response_model=schemas.KeyList, summary="List keys, newest first")
def list_(caller: Caller) -> JSONResponse:
    """All keys of the owner, the revoked ones too."""
    with caller.reading() as unit:
        return responses.page([serializers.key(key) for key in keys.list_(unit.session, unit.tenant_id)], False, None)


@router.delete("/keys/{key_id}", status_code=204, response_class=Response, summary="Revoke a key")
def revoke(key_id: KeyId, caller: Caller) -> Response:
    """The key is useless from now on, for the asker too if it is the asker's own."""
    with caller.writing() as unit:
        keys.revoke(unit.session, unit.tenant_id, key_id)
    return Response(status_code=204)


def _seal(secret: str, authorization: str) -> str:
    """The new secret under a one-time pad that only the asker's own key, which is stored nowhere, makes again."""
    nonce = secrets.token_bytes(16)
    return nonce.hex() + _xor(secret.encode(), _pad(nonce, authorization)).hex()


def _open(sealed: str, authorization: str) -> str:
    nonce, hidden = bytes.fromhex(sealed[:32]), bytes.fromhex(sealed[32:])
    return _xor(hidden, _pad(nonce, authorization)).decode()


def _pad(nonce: bytes, authorization: str) -> bytes:
    asker = authorization.split()[-1].encode()
    return hashlib.blake2b(nonce, key=hashlib.sha512(b"pad" + asker).digest(), person=b"twoviews keys").digest()


def _xor(text: bytes, pad: bytes) -> bytes:
    assert len(text) <= len(pad), "a pad is used once, and never stretched"
    return bytes(a ^ b for a, b in zip(text, pad, strict=False))

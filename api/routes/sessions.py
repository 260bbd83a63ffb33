"""Routes of /sessions: a browser signs in with a one-time token, and gets a key of its own for a day."""

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from api import schemas, serializers
from api.deps import AdminCaller
from api.json_body import JsonRoute
from api.responses import JSONResponse, rfc3339
from service import audit
from service.audit import Actor
from service.errors import WrongToken
from service.keys import sessions

router = APIRouter(tags=["keys"], route_class=JsonRoute)
_NO_STORE = {"Cache-Control": "no-store"}
_LATER = ("last_used_at", "revoked_at")  # fields that a new key does not have


@router.post("/sessions/tokens", status_code=201, response_model=schemas.SignInToken, summary="Create a sign-in token")
def create_token(caller: AdminCaller) -> JSONResponse:
    """The token opens one session, within 15 minutes, with the scopes of the request's key."""
    with caller.writing() as unit:
        token = sessions.create_token(unit.session, unit.identity)
        unit.record("session.token", unit.key_id, expires_at=rfc3339(token.expires_at))
    content = {"object": "sign_in_token", "token": token.secret, "expires_at": rfc3339(token.expires_at)}
    return JSONResponse(content, 201, _NO_STORE)


@router.post("/sessions", status_code=201, response_model=schemas.MadeKey, summary="Open a session")
async def open_(request: Request, body: schemas.NewSession) -> JSONResponse:
    """Exchanges a token for a key that expires in a day, or with the key that made the token. It needs no key.

    `DELETE /keys/{key_id}` ends the session.
    """
    return await run_sync(_open, request, body.token)


def _open(request: Request, token: str) -> JSONResponse:
    state, address = request.app.state, request.client.host if request.client else ""
    state.wrong_keys.check(address, token)
    try:
        with state.database.writing() as session:
            key, secret, maker = sessions.open_(session, token)
            actor = Actor(maker.tenant_id, maker.key_id, maker.key_name, address, request.state.request_id)
            audit.record(session, actor, "session.open", key.id, expires_at=rfc3339(key.expires_at))
            fields = serializers.key(key)
    except WrongToken:
        state.wrong_keys.add_wrong(address)
        raise
    content = {name: value for name, value in fields.items() if name not in _LATER} | {"key": secret}
    return JSONResponse(content, 201, _NO_STORE)

"""Sessions of a browser: a one-time token, made with a key, is exchanged for a key that expires within a day."""

import secrets
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from service.db.models import Key, SignInToken
from service.db.session import clock, now
from service.errors import ExpiredKey, WrongKey, WrongToken
from service.keys.store import Identity, create, digest, identify_by_id

TOKEN_SECONDS = 900.0
SESSION_SECONDS = 86_400.0
NAME = "browser session"
_MAX_TOKENS = 100  # of a key that are unused; the oldest are dropped


@dataclass(frozen=True, slots=True)
class Token:
    """A one-time token, and when it expires in Unix seconds."""

    secret: str
    expires_at: float


def create_token(session: Session, maker: Identity) -> Token:
    """Create a token that signs in with what `maker`'s key may do. It is stored as its SHA-256."""
    secret = "tvs_" + secrets.token_urlsafe(24)
    expires_at = clock(session) + TOKEN_SECONDS
    session.execute(delete(SignInToken).where(SignInToken.expires_at <= now()))
    newest = select(SignInToken.sha256).where(SignInToken.key_id == maker.key_id)
    kept = newest.order_by(SignInToken.expires_at.desc()).limit(_MAX_TOKENS - 1)
    session.execute(delete(SignInToken).where(SignInToken.key_id == maker.key_id, SignInToken.sha256.not_in(kept)))
    session.execute(insert(SignInToken).values(sha256=digest(secret), key_id=maker.key_id, expires_at=expires_at))
    return Token(secret, expires_at)


def open_(session: Session, token: str) -> tuple[Key, str, Identity]:
    """Use the token up; return a new key, its secret, and the identity of the key that made the token.

    The new key has that key's scopes and role, and its expiry when that is sooner than a day. Raises WrongToken for a
    token that is unknown, used, expired, or of a key that is no longer valid.
    """
    used = delete(SignInToken).where(SignInToken.sha256 == digest(token), SignInToken.expires_at > now())
    key_id = session.execute(used.returning(SignInToken.key_id)).scalar_one_or_none()
    if key_id is None:
        raise WrongToken
    maker = identify_by_id(session, key_id)
    try:
        maker.check()
    except (WrongKey, ExpiredKey) as error:
        raise WrongToken from error
    expires_at = min(clock(session) + SESSION_SECONDS, maker.expires_at or float("inf"))
    key, secret = create(session, maker.tenant_id, NAME, maker.role, scopes=maker.scopes, expires_at=expires_at)
    return key, secret, maker

"""Grants: the scopes and the expiry of a new key, which are at most those of the key that makes it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.db.session import clock
from service.errors import ExpiryExceeded, ExpiryPast, ScopeExceeded
from service.keys.scopes import Scope, sort
from service.keys.store import Identity
from ssl_core.errors import Fault

DAY_SECONDS = 86_400
MAX_EXPIRY_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Grant:
    """The scopes and the expiry, in Unix seconds, of a new key."""

    scopes: Sequence[Scope]
    expires_at: float | None


def grant(
    session: Session,
    maker: Identity,
    scopes: Sequence[Scope] | None = None,
    expires_at: float | None = None,
    expires_in_days: int | None = None,
) -> Grant:
    """Return what `maker` gives a new key: by default its own scopes and its own expiry.

    Of two expiries the sooner applies. Raises ScopeExceeded, ExpiryExceeded, and ExpiryPast by the database's clock.
    """
    chosen = sort(maker.scopes if scopes is None else scopes)
    missing = [scope for scope in chosen if scope not in maker.scopes]
    if missing:
        detail = (
            f"This key does not have the scope {' or '.join(f'`{scope}`' for scope in missing)}, so it cannot give it."
        )
        raise ScopeExceeded(detail, errors=[Fault(pointer="/scopes", code="scope_exceeded", detail=detail)])
    return Grant(chosen, _choose_expiry(session, maker, expires_at, expires_in_days))


def _choose_expiry(session: Session, maker: Identity, at: float | None, days: int | None) -> float | None:
    if at is None and days is None:
        return maker.expires_at
    now = clock(session)
    expiries = {"/expires_at": at, "/expires_in_days": None if days is None else now + DAY_SECONDS * days}
    expiry, pointer = min((time, name) for name, time in expiries.items() if time is not None)
    if expiry <= now:
        detail = "The expiry must be in the future."
        raise ExpiryPast(detail, errors=[Fault(pointer=pointer, code="expiry_past", detail=detail)])
    if maker.expires_at is not None and expiry > maker.expires_at:
        detail = "This key cannot make one that expires later than itself."
        raise ExpiryExceeded(detail, errors=[Fault(pointer=pointer, code="expiry_exceeded", detail=detail)])
    return expiry

"""API keys: bearer tokens of tenants with scopes and, optionally, an expiry."""

from service.keys.grants import Grant, grant
from service.keys.scopes import SCOPES, Scope
from service.keys.store import (
    Identity,
    Role,
    authenticate,
    create,
    get_or_create_tenant,
    identify,
    list_,
    list_valid,
    record_use,
    revoke,
)

__all__ = [
    "SCOPES",
    "Grant",
    "Identity",
    "Role",
    "Scope",
    "authenticate",
    "create",
    "get_or_create_tenant",
    "grant",
    "identify",
    "list_",
    "list_valid",
    "record_use",
    "revoke",
]

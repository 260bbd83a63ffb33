"""Scopes: what a key may be used for. Each route needs one."""

from collections.abc import Iterable
from functools import cache
from typing import Literal

from service.errors import AdminScopeNeeded, EmbedScopeNeeded, Forbidden, ReadScopeNeeded, TrainScopeNeeded

Scope = Literal["read", "embed", "train", "admin"]
SCOPES: dict[Scope, str] = {
    "read": "reads the owner's datasets, jobs, models, indexes and usage, and the catalogue; searches indexes",
    "embed": "embeds images",
    "train": "makes, cancels and deletes datasets, jobs, models and indexes",
    "admin": "makes, lists and revokes keys, and reads the audit trail",
}
ALL: frozenset[Scope] = frozenset(SCOPES)
SCOPE_NEEDED: dict[Scope, type[Forbidden]] = {
    "read": ReadScopeNeeded,
    "embed": EmbedScopeNeeded,
    "train": TrainScopeNeeded,
    "admin": AdminScopeNeeded,
}


@cache
def parse(stored: str) -> frozenset[Scope]:
    """Return the scopes of a key's column; unknown ones, of a newer version, are left out."""
    return frozenset(name for name in SCOPES if name in stored.split())


def sort(scopes: Iterable[Scope]) -> list[Scope]:
    """Return the scopes in the order of `SCOPES`, each once."""
    held = frozenset(scopes)
    return [scope for scope in SCOPES if scope in held]

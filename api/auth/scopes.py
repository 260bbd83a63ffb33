"""Scopes of routes: each names the one it needs in the type of its caller, such as `ReadCaller`."""

from collections.abc import Callable
from typing import Any, cast, get_type_hints

from fastapi.params import Security

from service.keys import Scope


def find_scope(endpoint: Callable[..., Any]) -> Scope | None:
    """Return the scope that the route's function needs, None for a route without a key."""
    hints = get_type_hints(endpoint, include_extras=True)
    found = {
        scope
        for hint in hints.values()
        for marker in getattr(hint, "__metadata__", ())
        if isinstance(marker, Security)
        for scope in marker.scopes or ()
    }
    assert len(found) <= 1, f"{endpoint.__name__} needs several scopes"
    return cast(Scope, found.pop()) if found else None

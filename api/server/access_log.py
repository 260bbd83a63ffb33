"""The access log: one record for each request, with its method, path, route, status, duration, bytes and client."""

import logging

from starlette.types import Scope

_log = logging.getLogger("api.access")


def set_enabled(enabled: bool) -> None:
    """Log requests or not; it is on by default, at level info."""
    _log.disabled = not enabled


def write(scope: Scope, status: int, seconds: float, body_bytes: int) -> None:
    """Log a request after its response. Checks of health are logged at level debug.

    seconds: from the head of the request to the end of the response. body_bytes: sent in the response's body. The
    query is not logged. Status 0: the client has gone before a response.
    """
    route = getattr(scope.get("route"), "path", None)
    level = logging.DEBUG if route is not None and route.startswith("/health/") else logging.INFO
    if not _log.isEnabledFor(level):
        return
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    client = scope["client"][0] if scope.get("client") else None
    fields = {
        "method": scope["method"],
        "path": path,
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
        "bytes": body_bytes,
        "client": client,
    }
    _log.log(level, "%s %s %d", scope["method"], path, status, extra=fields)


def write_refused(status: int, client: str, request_id: str) -> None:
    """Log a connection that is refused before its request has a complete head."""
    _log.info("refused %d", status, extra={"status": status, "client": client or None, "request": request_id})

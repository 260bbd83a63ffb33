"""The open connections of the server: how many there may be, which one is closed for a new one, and their deadlines."""

import asyncio
import resource
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Protocol

from service.settings import Settings

_RESERVED_FILES = 256  # of the process: database, storage, encoder, libraries
_CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of connections, and deadlines in seconds; `per_address` does not apply to trusted proxies."""

    total: int
    per_address: int
    trusted_proxies: str
    head_seconds: float
    body_seconds: float
    idle_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Return the limits of the settings; `total` stays below the process's limit of open files."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        total = settings.http_connections
        return cls(
            total=total if files == resource.RLIM_INFINITY else min(total, max(files // 2, files - _RESERVED_FILES)),
            per_address=settings.http_connections_per_address,
            trusted_proxies=settings.trusted_proxies,
            head_seconds=settings.http_head_seconds,
            body_seconds=settings.http_body_seconds,
            idle_seconds=settings.http_idle_seconds,
        )

    def is_trusted(self, address: str) -> bool:
        """Return whether the address is that of a trusted proxy; an empty one is that of a Unix socket."""
        if not address or self.trusted_proxies == "*":
            return True
        networks = (ip_network(item.strip(), strict=False) for item in self.trusted_proxies.split(",") if item.strip())
        return any(ip_address(address) in network for network in networks)


class Connection(Protocol):
    """What `Connections` needs of a connection. `address` is the peer's, empty on a Unix socket."""

    address: str

    def close(self) -> None:
        """Close the connection, which has no request in progress, at once."""

    def check_deadline(self, now: float) -> None:
        """Close the connection if it has exceeded a deadline; `now` is the event loop's time."""


class Connections:
    """The open connections, within the limits.

    Those without a request in progress are waiting. A new connection beyond a limit replaces the one that has waited
    longest; so clients that send nothing cannot keep others out.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[Connection, None] = {}
        self._waiting: dict[Connection, None] = {}  # the longest first
        self._by_address: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection) -> bool:
        """Add a new connection, which waits; return whether there was room."""
        if not self._make_room(connection):
            return False
        self._open[connection] = self._waiting[connection] = None
        self._by_address[connection.address] += 1
        if self._timer is None:
            self._schedule()
        return True

    def remove(self, connection: Connection) -> None:
        """Remove a connection that has ended, if it was added."""
        self._waiting.pop(connection, None)
        if connection in self._open:
            del self._open[connection]
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def begin_request(self, connection: Connection) -> None:
        """Mark a connection as one with a request in progress."""
        self._waiting.pop(connection, None)

    def end_request(self, connection: Connection) -> None:
        """Mark a connection as waiting, from now on."""
        if connection in self._open:
            self._waiting[connection] = None

    def _make_room(self, connection: Connection) -> bool:
        address, limits = connection.address, self.limits
        if self._by_address[address] >= limits.per_address and not limits.is_trusted(address):
            return self._close_first([other for other in self._waiting if other.address == address])
        return len(self._open) < limits.total or self._close_first(list(self._waiting))

    def _close_first(self, waiting: list[Connection]) -> bool:
        if not waiting:
            return False
        self.remove(waiting[0])
        waiting[0].close()
        return True

    def _schedule(self) -> None:
        limits = self.limits
        shortest = min(_CHECK_SECONDS, limits.head_seconds / 4, limits.body_seconds / 4, limits.idle_seconds / 4)
        self._timer = asyncio.get_running_loop().call_later(shortest, self._check_all)

    def _check_all(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self._open):
            connection.check_deadline(now)
        self._timer = None
        if self._open:
            self._schedule()

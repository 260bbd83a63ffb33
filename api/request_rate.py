"""Request rate: counts the requests of each owner in windows of a minute, and refuses those above the quota.

Counted in the memory of this process, which needs no network and works while the broker is away; with several API
processes behind a proxy, each allows the quota. A count takes a microsecond; the memory storage of the library `limits`
starts a thread to expire its counts, which takes a millisecond.
"""

import math
import time
from dataclasses import dataclass
from threading import Lock

from service.errors import RequestQuotaExceeded
from ssl_core.errors import Fault

_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RequestCount:
    """Requests in the current minute; `allowed` is None without a quota."""

    used: int
    allowed: int | None


class RequestRate:
    """Counts requests per owner. The window is that of the process: at its end all counts are dropped."""

    def __init__(self, per_minute: int) -> None:
        """per_minute: the quota of an owner; 0 is no limit."""
        self._allowed = per_minute or None
        self._lock = Lock()
        self._counts: dict[str, int] = {}
        self._ends = 0.0  # on the monotonic clock

    def add(self, tenant_id: str) -> None:
        """Count a request. Raises RequestQuotaExceeded, and does not count it, above the quota."""
        with self._lock:
            used = self._count(tenant_id)
            if self._allowed is None or used < self._allowed:
                self._counts[tenant_id] = used + 1
                return
            seconds = max(1, math.ceil(self._ends - time.monotonic()))
        detail = f"{used:,} requests were sent in this minute, as many as are allowed; wait {seconds} seconds."
        fault = Fault(pointer="requests_per_minute", code="quota_exceeded", detail=detail)
        raise RequestQuotaExceeded(detail, errors=[fault], retry_after=seconds)

    def count(self, tenant_id: str) -> RequestCount:
        """Return the requests of the owner in the current minute."""
        with self._lock:
            return RequestCount(self._count(tenant_id), self._allowed)

    def _count(self, tenant_id: str) -> int:
        now = time.monotonic()
        if now >= self._ends:
            self._counts, self._ends = {}, now + _WINDOW_SECONDS
        return self._counts.get(tenant_id, 0)

"""The memory for the bodies of concurrent requests: how much of it each owner holds, and the limits of both."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import EncoderBusy

OWNER_SHARE = 0.75  # of the memory, for the concurrent requests of one owner


class BodyMemory:
    """At most `size` bytes for all requests; the requests of one owner get OWNER_SHARE of it, one request alone all."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: Counter[str] = Counter()  # owner -> bytes
        self._total = 0

    @contextmanager
    def allocation(self, owner: str) -> Iterator["Allocation"]:
        """Yield an allocation of no bytes yet, which is freed at the end of the block."""
        allocation = Allocation(self, owner)
        try:
            yield allocation
        finally:
            allocation.shrink(allocation.size)

    def can_take(self, owner: str, own: int, size: int) -> bool:
        """Whether a request of the owner that holds `own` bytes may take `size` more."""
        others = self._held[owner] - own  # of the owner's other requests
        share = self._size * OWNER_SHARE if others else self._size
        return self._total + size <= self._size and self._held[owner] + size <= share

    def take(self, owner: str, size: int) -> None:
        """Take `size` bytes, or return as many where it is negative."""
        self._total += size
        self._held[owner] += size
        if not self._held[owner]:
            del self._held[owner]


class Allocation:
    """The bytes that one request holds."""

    def __init__(self, memory: BodyMemory, owner: str) -> None:
        self.size = 0
        self._memory = memory
        self._owner = owner

    def grow(self, size: int) -> None:
        """Take `size` bytes more. Raises EncoderBusy when they are not free."""
        if not self._memory.can_take(self._owner, self.size, size):
            raise EncoderBusy(retry_after=1)
        self._memory.take(self._owner, size)
        self.size += size

    def shrink(self, size: int) -> None:
        """Return `size` bytes."""
        self._memory.take(self._owner, -size)
        self.size -= size

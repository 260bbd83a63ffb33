"""Places in a queue: how many requests wait in all, and how many of one owner."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import EncoderBusy


class Places:
    """At most `total` requests without an answer yet, and `of_owner` of one owner."""

    def __init__(self, total: int, of_owner: int) -> None:
        self._total, self._of_owner = total, of_owner
        self._waiting: Counter[str] = Counter()  # owner -> requests

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Hold a place within the block. Raises EncoderBusy."""
        if self._waiting[owner] >= self._of_owner or self._waiting.total() >= self._total:
            raise EncoderBusy(retry_after=1)
        self._waiting[owner] += 1
        try:
            yield
        finally:
            self._waiting[owner] -= 1
            if not self._waiting[owner]:
                del self._waiting[owner]

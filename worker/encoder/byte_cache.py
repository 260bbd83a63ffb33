"""A byte cache: results by key, the least recently used dropped first."""

from collections import OrderedDict
from collections.abc import Hashable


class ByteCache:
    """At most `max_bytes` of values; one that is larger is not kept. Belongs to one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self.size = 0

    def get(self, key: Hashable) -> bytes | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: bytes) -> None:
        if len(value) > self._max_bytes:
            return
        self.size += len(value) - len(self._values.pop(key, b""))
        self._values[key] = value
        while self.size > self._max_bytes:
            self.size -= len(self._values.popitem(last=False)[1])

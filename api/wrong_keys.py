"""The brake on wrong keys: an address that sends many is refused without a query of the database."""

import hashlib
import time
from collections import OrderedDict
from threading import Lock
from typing import TypeVar

from service.errors import TooManyWrongKeys

_WINDOW_SECONDS = 60.0
_MAX_ADDRESSES = 10_000  # remembered; the one that was wrong longest ago is forgotten
_MAX_KEYS = 10_000
Key = TypeVar("Key")
Value = TypeVar("Value")


class WrongKeyBrake:
    """Counts the wrong keys of each address in windows of a minute.

    A key that was valid before passes, so that a client behind the same proxy as an attacker is served.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()  # the window's start, and the count in it
        self._valid: OrderedDict[bytes, None] = OrderedDict()
        self._lock = Lock()

    def check(self, address: str, secret: str) -> None:
        """Raise TooManyWrongKeys when the address has sent too many, and this key was not valid before."""
        started, count = self._wrong.get(address, (0.0, 0))
        remaining = started + _WINDOW_SECONDS - time.monotonic()
        if count >= self._per_minute and remaining > 0 and _digest(secret) not in self._valid:
            raise TooManyWrongKeys(retry_after=int(remaining) + 1)

    def add_wrong(self, address: str) -> None:
        """Count a wrong key."""
        now = time.monotonic()
        with self._lock:
            started, count = self._wrong.get(address, (now, 0))
            self._wrong[address] = (started, count + 1) if now < started + _WINDOW_SECONDS else (now, 1)
            _keep_newest(self._wrong, address, _MAX_ADDRESSES)

    def add_valid(self, secret: str) -> None:
        """Remember a valid key."""
        digest = _digest(secret)
        if digest not in self._valid:
            with self._lock:
                self._valid[digest] = None
                _keep_newest(self._valid, digest, _MAX_KEYS)


def _keep_newest(entries: OrderedDict[Key, Value], key: Key, size: int) -> None:
    entries.move_to_end(key)
    while len(entries) > size:
        entries.popitem(last=False)


def _digest(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=16).digest()

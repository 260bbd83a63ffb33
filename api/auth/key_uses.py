"""Uses of keys that change nothing else: last uses, refusals and downloads.

They are kept in memory and stored together every few seconds, in a thread, so that a request that only reads never
waits for the write lock. A process that is killed loses those of the last seconds.
"""

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

import anyio
from anyio.to_thread import run_sync
from sqlalchemy.exc import SQLAlchemyError

from service import audit, keys
from service.audit import Action, Actor
from service.db.session import Database

REPEAT_SECONDS = 60.0  # a use that repeats an earlier one is not recorded again for this time
MAX_PENDING = 1000  # entries that wait to be stored; further ones are dropped, and logged
MAX_REMEMBERED = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    actor: Actor
    action: Action
    target: str
    detail: dict[str, Any]
    at: float  # on the monotonic clock


class KeyUses:
    """The uses of keys in this process that are not stored yet. Safe to share between threads."""

    def __init__(self, database: Database, store_seconds: float) -> None:
        self._database, self._store_seconds = database, store_seconds
        self._used: dict[str, float] = {}  # last uses to store, on the monotonic clock
        self._entries: list[_Entry] = []
        self._last_uses: OrderedDict[str, float] = OrderedDict()
        self._recorded: OrderedDict[tuple[str | None, Action, str], float] = OrderedDict()
        self._dropped = 0
        self._lock = Lock()

    def add_use(self, key_id: str) -> None:
        """Record that the key is used, once a minute."""
        now = time.monotonic()
        if now - self._last_uses.get(key_id, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            with self._lock:
                _remember(self._last_uses, key_id, now)
                self._used[key_id] = now

    def add_refusal(self, actor: Actor, code: str, route: str) -> None:
        """Record that a key was refused: one entry a minute for each key and code."""
        assert actor.key_id is not None
        self._add(actor, "key.refuse", actor.key_id, (actor.key_id, "key.refuse", code), {"code": code, "route": route})

    def add_download(self, actor: Actor, action: Action, target: str, **detail: str) -> None:
        """Record a download: one entry a minute for each key and file, so that ranges of a file count once."""
        name = "/".join((target, *detail.values()))
        self._add(actor, action, target, (actor.key_id, action, name), detail)

    def _add(
        self, actor: Actor, action: Action, target: str, use: tuple[str | None, Action, str], detail: dict[str, str]
    ) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._recorded.get(use, -REPEAT_SECONDS) < REPEAT_SECONDS:
                return
            _remember(self._recorded, use, now)
            if len(self._entries) < MAX_PENDING:
                self._entries.append(_Entry(actor, action, target, detail, now))
            else:
                self._dropped += 1

    def store(self) -> None:
        """Store what is not stored yet. When the database is away, it is kept for the next call."""
        with self._lock:
            used, entries, dropped = self._used, self._entries, self._dropped
            self._used, self._entries, self._dropped = {}, [], 0
        if dropped:
            _log.warning("The audit trail lacks %d refusals and downloads: there were too many at a time.", dropped)
        if not used and not entries:
            return
        try:
            with self._database.writing() as session:
                now = time.monotonic()
                for key_id, at in sorted(used.items()):  # in one order, so that two processes do not deadlock
                    keys.record_use(session, key_id, now - at)
                for entry in entries:
                    audit.record(session, entry.actor, entry.action, entry.target, now - entry.at, **entry.detail)
        except SQLAlchemyError as error:
            _log.warning("The uses of keys could not be stored: %s", str(error).partition("\n")[0])
            with self._lock:
                self._used = used | self._used
                self._entries = (entries + self._entries)[:MAX_PENDING]

    async def run(self) -> None:
        """Store at intervals, until cancelled."""
        while True:
            await anyio.sleep(self._store_seconds)
            await run_sync(self.store)


def _remember(times: OrderedDict[Any, float], name: Any, now: float) -> None:
    times[name] = now
    times.move_to_end(name)
    while len(times) > MAX_REMEMBERED:
        times.popitem(last=False)

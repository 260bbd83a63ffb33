"""The walk: checks every item of the inventory in order, saves how far it is, and goes on from there."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.db.session import Database
from service.storage import Storage
from service.verify import checks, record, state
from service.verify.checks import Checked, Step
from service.verify.inventory import Item, list_items
from service.verify.state import State
from ssl_core.errors import Corrupt

SAVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been checked so far; `total` counts the items of the whole walk."""

    items: int
    total: int
    bytes_read: int
    damaged: int


class Walk:
    """One verification of a storage. Iterating it checks the next items; `state` has what was found."""

    def __init__(self, database: Database, storage: Storage, *, restart: bool = False, recording: bool = False) -> None:
        """restart: whether to ignore what an interrupted verification has checked.

        recording: whether to record hashes for sound models that were saved without (`service.verify.record`).
        """
        self._database = database
        self._storage = storage
        self._recording = recording
        self.recorded = 0  # models
        self._root: Path = storage.root
        found = None if restart else state.load(self._root)
        self.is_resumed = found is not None
        self.state = found or State(time.time())
        self._saved_at = time.monotonic()

    def __iter__(self) -> Iterator[Progress]:
        """Yield the progress after each part of a file that was read."""
        with self._database.reading() as session:
            left = [item for item in list_items(session) if item.key > tuple(self.state.after)]
        total = self.state.items + len(left)
        for item in left:
            damaged = len(self.state.damaged)
            for step in self._check(item):
                self._add(item, step)
                yield Progress(self.state.items, total, self.state.bytes_read, len(self.state.damaged))
            if self._recording and item.kind == "model" and len(self.state.damaged) == damaged:
                self._record_model(item)
            self.state.items += 1
            self.state.after = list(item.key)
            if time.monotonic() - self._saved_at >= SAVE_SECONDS:
                self._save()
        self._drop_removed()
        with suppress(OSError):
            state.remove(self._root)

    def _check(self, item: Item) -> Iterator[Step]:
        try:
            path = self._storage.absolute(item.path)
        except ValueError:  # it leads out of the storage
            yield Checked("", "unreadable")
            return
        yield from checks.check_item(item, path)

    def _add(self, item: Item, step: Step) -> None:
        match step:
            case int():
                self.state.bytes_read += step
            case Checked(outcome="unchecked"):
                self.state.unchecked += 1
            case Checked(name, "corrupt" | "missing" | "unreadable" as outcome):
                self.state.damaged.append([*item.key, name, outcome])

    def _record_model(self, item: Item) -> None:
        """Record the model's hashes, unless it has them or the storage cannot be written."""
        with suppress(OSError, Corrupt):
            if record.record_model(self._database, self._storage.absolute(item.path), item.path):
                self.recorded += 1
                self.state.unchecked -= 1  # its card

    def _drop_removed(self) -> None:
        """Forget what was found of items that the database has ceased to name, such as a deleted dataset."""
        if self.state.damaged:
            with self._database.reading() as session:
                named = {item.key for item in list_items(session)}
            self.state.damaged = [entry for entry in self.state.damaged if (entry[0], entry[1]) in named]

    def _save(self) -> None:
        """Save the state, unless the storage is full or read-only: then a kill restarts the verification."""
        with suppress(OSError):
            state.save(self._root, self.state)
        self._saved_at = time.monotonic()

"""Pins: hard links, in the data folder, to the files that a snapshot names: they keep the bytes as they are.

Stored files are never changed in place: a new version is a new file that is renamed. So a link keeps one version, and
neither the sweep nor a trainer that removes its old checkpoints can take it away.
"""

import os
import secrets
import shutil
from pathlib import Path

from service.backup.copying import hash_file, list_files
from service.storage import Storage
from service.verify.inventory import Item


class Pins:
    """The pinned files, at their paths in the data folder. A killed process leaves them to the keeper's sweep."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.root = storage.pins_dir / f"backup-{secrets.token_hex(8)}"

    def add(self, item: Item) -> None:
        """Pin the files of an item that are there. Raises OSError when the disk is full."""
        try:
            path = self._storage.absolute(item.path)
        except ValueError:  # it leads out of the storage
            return
        for file in list_files(path):
            _link(file, self.root / self._storage.relative(file))

    def has(self, item: Item) -> bool:
        """Whether the pinned file of an item is the one that its row describes."""
        path = self.root / item.path
        if not path.is_file() or path.stat().st_size != item.size_bytes:
            return False
        # A checkpoint has its step in its name and is not written twice; an artifact may be.
        return item.kind != "artifact" or hash_file(path) == item.sha256

    def keep(self) -> None:
        """Mark the pins as used, so that the sweep does not take those of a long backup for left over."""
        if self.root.exists():
            os.utime(self.root)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def _link(file: Path, pin: Path) -> None:
    pin.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, pin)
    except (FileNotFoundError, FileExistsError):  # a trainer has removed it, or it is pinned
        return
    except OSError:  # a file system without hard links
        try:
            shutil.copy2(file, pin)
        except FileNotFoundError:
            return

"""Copies of files with their SHA-256, durable before they have their names."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from service.backup.manifest import Entry
from ssl_core.files import TEMPORARY, sync

_CHUNK_BYTES = 4 * 2**20


def copy(source: Path, target: Path) -> Entry:
    """Copy a file, or only read the copy that an interrupted call has left; return the entry of the copy.

    Raises OSError.
    """
    found = source.stat()
    if _is_copied(found, target):
        return Entry(hash_file(target), found.st_size, found.st_mtime_ns)
    target.parent.mkdir(parents=True, exist_ok=True)
    tmp = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.tmp")
    digest, size = hashlib.sha256(), 0
    try:
        with source.open("rb") as file, tmp.open("xb") as copied:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                copied.write(chunk)
            copied.flush()
            os.utime(tmp, ns=(found.st_mtime_ns, found.st_mtime_ns))
            os.fsync(copied.fileno())
        tmp.replace(target)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
    return Entry(digest.hexdigest(), size, found.st_mtime_ns)


def link_unchanged(source: Path, earlier: Path, entry: Entry | None, target: Path) -> bool:
    """Make `target` a hard link to the file of an earlier backup if `source` has not changed; return whether it is.

    entry: that of the earlier file, or None when it has none.
    """
    found = source.stat()
    if entry is None or (entry.size_bytes, entry.modified_ns) != (found.st_size, found.st_mtime_ns):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(earlier, target)
    except OSError:  # another file system, or the earlier file is gone
        return False
    return True


def list_files(path: Path) -> Iterator[Path]:
    """Yield a file, or the regular files of a folder and its folders in order; nothing when it is missing."""
    if path.is_file() and not path.is_symlink():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (file for name in sorted(names) if (file := Path(folder, name)).is_file() and not file.is_symlink())


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_temporary(root: Path) -> None:
    """Remove the temporary files that interrupted copies have left below `root`. Raises OSError."""
    for file in root.rglob(TEMPORARY):
        file.unlink()


def sync_folders(root: Path) -> None:
    """Make the names of all files below `root` durable. Raises OSError."""
    for folder, _, _ in os.walk(root):
        sync(Path(folder))


def _is_copied(source: os.stat_result, target: Path) -> bool:
    try:
        found = target.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (source.st_size, source.st_mtime_ns)

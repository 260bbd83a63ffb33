"""Checksums of a file's blocks: computed while the file is written, checked when a block is first read in a process.

The digests of a folder's files are in one file beside them, SHA-256 of 32 bytes each, and a record in a document of the
folder has that file's name and SHA-256, the size of a block, and the files' sizes in the order of their digests.
Imports no torch.
"""

import hashlib
import mmap
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from ssl_core.errors import Corrupt
from ssl_core.files import write_atomic

BLOCK_BYTES = 256 * 1024  # the first read of an image reads and hashes this much: 0.2 ms
DIGESTS_FILE = "blocks.sha256"
_DIGEST_BYTES = 32


class BlockWriter:
    """Writes to a binary file and hashes each block."""

    def __init__(self, file: IO[bytes], block_bytes: int = BLOCK_BYTES) -> None:
        self._file = file
        self._block_bytes = block_bytes
        self._block = hashlib.sha256()
        self._digests = bytearray()
        self.size = 0

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: Any) -> int:
        """Write bytes, or any other buffer."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        done = 0
        while done < len(view):
            part = view[done : done + self._block_bytes - self.size % self._block_bytes]
            self._block.update(part)
            done += len(part)
            self.size += len(part)
            if self.size % self._block_bytes == 0:
                self._digests += self._block.digest()
                self._block = hashlib.sha256()
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def digests(self) -> bytes:
        """Return the digests of all blocks; the last one may be short."""
        return bytes(self._digests) + (self._block.digest() if self.size % self._block_bytes else b"")


def write_digests(directory: Path, writers: Mapping[str, BlockWriter]) -> dict[str, Any]:
    """Write the digests of the files, by name, beside them, and return their record. Raises OSError."""
    written = write_atomic(directory / DIGESTS_FILE, b"".join(writer.digests() for writer in writers.values()))
    return {
        "file": DIGESTS_FILE,
        "sha256": written.sha256,
        "block_bytes": BLOCK_BYTES,
        "sizes": {name: writer.size for name, writer in writers.items()},
    }


def open_file(directory: Path, record: Mapping[str, Any], name: str) -> "CheckedFile":
    """Return a file of a record. Raises OSError, and Corrupt for digests or a size other than recorded."""
    digests = (directory / record["file"]).read_bytes()
    if hashlib.sha256(digests).hexdigest() != record["sha256"]:
        raise Corrupt(record["file"])
    start = 0
    for other, size in record["sizes"].items():
        end = start + _DIGEST_BYTES * -(-size // record["block_bytes"])
        if other == name:
            break
        start = end
    return CheckedFile(directory / name, digests[start:end], record["sizes"][name], record["block_bytes"])


class CheckedFile:
    """A file whose blocks are checked once each. Threads may share it; two may check the same block."""

    def __init__(self, path: Path, digests: bytes, size: int, block_bytes: int) -> None:
        self.name = path.name
        self.size = size
        self.block_bytes = block_bytes
        self._digests = digests
        self._left = len(digests) // _DIGEST_BYTES
        self._checked = bytearray(self._left)
        self._lock = threading.Lock()
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise Corrupt(path.name)
            self._bytes = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"")

    @property
    def is_checked(self) -> bool:
        """Whether every block has been checked."""
        return self._left == 0

    def check(self, start: int, end: int) -> None:
        """Check the blocks of the bytes from `start` to `end`. Raises Corrupt."""
        if self.is_checked or start >= end:
            return
        first, last = start // self.block_bytes, (end - 1) // self.block_bytes
        if 0 in self._checked[first : last + 1]:
            self.check_blocks(range(first, last + 1))

    def check_blocks(self, numbers: Iterable[int]) -> None:
        """Check the blocks of these numbers, each unless it has been. Raises Corrupt."""
        for number in numbers:
            if not self._checked[number]:
                self._check_block(number)

    def check_all(self) -> None:
        """Check every block. Raises Corrupt."""
        self.check(0, self.size)

    def _check_block(self, number: int) -> None:
        block = self._bytes[number * self.block_bytes : (number + 1) * self.block_bytes]
        expected = self._digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]
        if hashlib.sha256(block).digest() != expected:
            raise Corrupt(self.name)
        with self._lock:
            self._left -= not self._checked[number]
            self._checked[number] = 1

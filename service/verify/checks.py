"""Checks of one item: its files are there, and have the SHA-256 that was recorded when they were written."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from service.verify.inventory import Item
from ssl_core.checksums import blocks, document
from ssl_core.errors import Corrupt

Outcome = Literal["sound", "unchecked", "corrupt", "missing", "unreadable"]
DATASET, INDEX, CARD, WEIGHTS = "dataset.json", "index.json", "model.json", "weights.safetensors"
_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Checked:
    """One file of an item. `unchecked`: it is there, and an earlier version wrote it without a SHA-256."""

    name: str  # empty for an item that is a single file
    outcome: Outcome


Step = int | Checked  # bytes that have been read, or a file that has been


def check_item(item: Item, path: Path) -> Iterator[Step]:
    """Yield the bytes read and the outcome of each file of an item."""
    if item.kind == "dataset":
        yield from _check_dataset(path)
    elif item.kind == "index":
        yield from _check_index(path)
    elif item.kind == "model":
        yield from _check_model(path, item)
    else:
        yield from _check("", _hash(path, item.sha256, item.size_bytes))


def _check_dataset(folder: Path) -> Iterator[Step]:
    report: dict[str, Any] = {}
    yield from _check(DATASET, _read_document(folder / DATASET, report))
    if not report:
        return
    if document.FIELD not in report:
        array = report.get("pixels")
        for name in (DATASET, "images.arrow", *([array["file"]] if array else [])):
            yield from _check(name, _find(folder / name), good="unchecked")
        return
    record = report["blocks"]
    *reading, digests = _check(record["file"], _hash(folder / record["file"], record["sha256"]))
    yield from (*reading, digests)
    for name in record["sizes"] if digests == Checked(record["file"], "sound") else ():
        yield from _check(name, _read_blocks(folder, record, name))


def _check_index(folder: Path) -> Iterator[Step]:
    about: dict[str, Any] = {}
    yield from _check(INDEX, _read_document(folder / INDEX, about))
    for name, entry in about.get("files", {}).items():
        yield from _check(name, _hash(folder / name, entry["sha256"], entry["size_bytes"]))


def _check_model(folder: Path, item: Item) -> Iterator[Step]:
    card: dict[str, Any] = {}
    yield from _check(CARD, _read_document(folder / CARD, card))
    if card and document.FIELD not in card:
        yield Checked(CARD, "unchecked")
    yield from _check(WEIGHTS, _hash(folder / WEIGHTS, item.sha256, item.size_bytes))
    for name, entry in card.get("files", {}).items():
        if name != WEIGHTS:
            yield from _check(name, _hash(folder / name, entry["sha256"], entry["size_bytes"]))


def _check(name: str, reading: Iterator[int], good: Outcome = "sound") -> Iterator[Step]:
    try:
        yield from reading
    except Corrupt:
        yield Checked(name, "corrupt")
    except (FileNotFoundError, NotADirectoryError):
        yield Checked(name, "missing")
    except OSError:
        yield Checked(name, "unreadable")
    else:
        yield Checked(name, good)


def _read_document(path: Path, into: dict[str, Any]) -> Iterator[int]:
    into.update(document.read(path))
    yield path.stat().st_size


def _find(path: Path) -> Iterator[int]:
    path.stat()
    yield 0


def _read_blocks(folder: Path, record: dict[str, Any], name: str) -> Iterator[int]:
    file = blocks.open_file(folder, record, name)
    for start in range(0, file.size, file.block_bytes):
        end = min(start + file.block_bytes, file.size)
        file.check(start, end)
        yield end - start


def _hash(path: Path, sha256: str, size_bytes: int | None = None) -> Iterator[int]:
    digest, read = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            read += len(chunk)
            yield len(chunk)
    if size_bytes not in (None, read) or digest.hexdigest() != sha256:
        raise Corrupt(path.name)

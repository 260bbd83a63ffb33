"""Checks of one item: its files are there, and have the SHA-256 that was recorded when they were written."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from service.verify.inventory import Item
from ssl_core.checksums import blocks, document
from ssl_core.errors import Corrupt

Outcome = Literal["sound", "unchecked", "corrupt", "missing", "unreadable"]
Advance = Callable[[int], None]  # called with the number of bytes read
DATASET, CARD, WEIGHTS = "dataset.json", "model.json", "weights.safetensors"
_CHUNK_BYTES = 4 * 2**20


def check_item(item: Item, path: Path, advance: Advance) -> Iterator[tuple[str, Outcome]]:
    """Yield the name and the outcome of each file of an item; a single file has the name "".

    `unchecked`: the file is there, and an earlier version wrote it without a SHA-256.
    """
    if item.kind == "dataset":
        yield from _check_dataset(path, advance)
    elif item.kind == "model":
        yield from _check_model(path, item, advance)
    else:
        yield "", _check(partial(_hash, path, item.sha256, item.size_bytes, advance))


def _check_dataset(folder: Path, advance: Advance) -> Iterator[tuple[str, Outcome]]:
    report, outcome = _read(folder / DATASET)
    yield DATASET, outcome
    if outcome == "unchecked":
        for name in ("images.arrow", *([report["pixels"]["file"]] if report.get("pixels") else [])):
            yield name, _check_unhashed(folder / name)
    if outcome != "sound":
        return
    record = report["blocks"]
    outcome = _check(partial(_hash, folder / record["file"], record["sha256"], None, advance))
    yield record["file"], outcome
    for name in record["sizes"] if outcome == "sound" else ():
        yield name, _check(partial(_read_blocks, folder, record, name, advance))


def _check_model(folder: Path, item: Item, advance: Advance) -> Iterator[tuple[str, Outcome]]:
    card, outcome = _read(folder / CARD)
    yield CARD, outcome
    yield WEIGHTS, _check(partial(_hash, folder / WEIGHTS, item.sha256, item.size_bytes, advance))
    for name, entry in card.get("files", {}).items():
        if name != WEIGHTS:
            yield name, _check(partial(_hash, folder / name, entry["sha256"], entry["size_bytes"], advance))


def _read(path: Path) -> tuple[dict[str, Any], Outcome]:
    """The document in a file, empty when it cannot be read."""
    found: dict[str, Any] = {}
    outcome = _check(lambda: found.update(document.read(path)))
    return found, "unchecked" if outcome == "sound" and document.FIELD not in found else outcome


def _check_unhashed(path: Path) -> Outcome:
    outcome = _check(path.stat)
    return "unchecked" if outcome == "sound" else outcome


def _read_blocks(folder: Path, record: dict[str, Any], name: str, advance: Advance) -> None:
    file = blocks.open_file(folder, record, name)
    for start in range(0, file.size, file.block_bytes):
        end = min(start + file.block_bytes, file.size)
        file.check(start, end)
        advance(end - start)


def _hash(path: Path, sha256: str, size_bytes: int | None, advance: Advance) -> None:
    digest, read = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            read += len(chunk)
            advance(len(chunk))
    if size_bytes not in (None, read) or digest.hexdigest() != sha256:
        raise Corrupt(path.name)


def _check(read: Callable[[], object]) -> Outcome:
    try:
        read()
    except Corrupt:
        return "corrupt"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError:
        return "unreadable"
    return "sound"

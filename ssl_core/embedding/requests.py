"""Shard requests: the shards that a process computes. The service asks for them by JSON lines, one ahead of the work.

    {"shard": 3, "first_row": 30000, "rows": 10000}     compute a shard
    {"finish": "shards.json"}                           all are done: write the index of those in this file

Without the service they are those of the plan whose files are not there.
"""

import json
import os
import select
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core.config.embedding import ShardRange
from ssl_core.events import Shard

_CHUNK_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Finish:
    """All shards are done: these, in order, which took `seconds` in all."""

    shards: tuple[Shard, ...]
    seconds: float


Request = ShardRange | Finish


def read_lines(descriptor: int, poll_seconds: float = 0.1) -> Iterator[Mapping[str, Any] | None]:
    """Yield the JSON line of each request on a pipe until it is closed, and None whenever there is none for a while."""
    rest = b""
    while True:
        if not select.select([descriptor], [], [], poll_seconds)[0]:
            yield None
            continue
        if not (chunk := os.read(descriptor, _CHUNK_BYTES)):
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def parse(line: Mapping[str, Any], directory: Path) -> Request:
    """Return the request of a line. Raises ValueError, KeyError and OSError when it is none."""
    if "finish" not in line:
        return ShardRange(int(line["shard"]), int(line["first_row"]), int(line["rows"]))
    found = json.loads((directory / Path(line["finish"]).name).read_bytes())
    return Finish(tuple(Shard(**shard) for shard in found["shards"]), float(found["seconds"]))

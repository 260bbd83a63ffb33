"""Records of logs, for tests: as JSON lines of a file or of this process."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.logs import redaction
from service.logs.formats import JsonLines
from service.settings import Settings

REQUIRED = ["time", "level", "logger", "message"]


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file, each of whose lines must be one."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record for record in records if list(record)[:4] != REQUIRED] == []
    return records


@contextmanager
def captured(settings: Settings | None = None, level: int = logging.INFO) -> Iterator[list[dict[str, Any]]]:
    """Yield a list that gets what this process logs within the block, as its JSON lines."""
    records: list[dict[str, Any]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = self.format(record)
            assert "\n" not in line
            records.append(json.loads(line))

    handler, root = Collector(), logging.getLogger()
    handler.setFormatter(JsonLines(redaction.build(settings or Settings())))
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield records
    finally:
        root.removeHandler(handler)
        root.setLevel(before)

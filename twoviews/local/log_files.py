"""Log files of child processes: their rotation by size, and their lines as text.

A child opens its file again when it has been renamed (`service.logs.output`), so that no line is lost.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

DEFAULT_BYTES, DEFAULT_FILES = 20 * 2**20, 5  # of TWOVIEWS_LOG_BYTES and TWOVIEWS_LOG_FILES


@dataclass(frozen=True, slots=True)
class Limits:
    """Size in bytes at which a file is renamed, and how many renamed ones are kept."""

    size_bytes: int = DEFAULT_BYTES
    files: int = DEFAULT_FILES

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Limits":
        """Return those of the settings. Raises ValueError."""
        names = {"TWOVIEWS_LOG_BYTES": DEFAULT_BYTES, "TWOVIEWS_LOG_FILES": DEFAULT_FILES}
        return cls(*(int(environment.get(name) or default) for name, default in names.items()))


def rotate(log: Path, limits: Limits) -> None:
    """Rename the file to `<name>.1`, older ones to `.2` and so on, and delete the oldest, if it has reached the size.

    Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size >= limits.size_bytes:
            for number in range(limits.files, 0, -1):
                newer = log.with_name(f"{log.name}.{number - 1}") if number > 1 else log
                if newer.exists():
                    newer.replace(log.with_name(f"{log.name}.{number}"))


def make_line(message: str, *, as_json: bool) -> str:
    """Return a warning of `twoviews up` as a line of a child's log."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    if not as_json:
        return f"{time} WARNING twoviews.up: {message}\n"
    return json.dumps({"time": time, "level": "WARNING", "logger": "twoviews.up", "message": message}) + "\n"


def to_text(line: str) -> str:
    """Return a line of JSON as text, with its traceback in lines of its own; another line as it is."""
    try:
        record = json.loads(line)
        text = "{time} {level} {logger}: {message}".format_map(record)
        return f"{text}\n{record['traceback']}" if "traceback" in record else text
    except (ValueError, KeyError, TypeError):
        return line

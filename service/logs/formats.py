"""Log formats: a record as one JSON object, or as text. Neither contains a secret."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from service.logs import context

TRACEBACK = "traceback"
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: "\\n", 13: "\\r", 9: "\\t"}
# Fields of every record, and uvicorn's; the others are those of `extra`.
_NOT_EXTRA = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", "color_message"})


class JsonLines(logging.Formatter):
    """Fields: time (UTC, RFC 3339), level, logger, message; the ids of the context, those of `extra`, traceback, stack.

    A library's formatter takes three times as long, which the access log would add to every request.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact
        self._encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": format_time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **context.get(),
        }
        fields.update((name, value) for name, value in record.__dict__.items() if name not in _NOT_EXTRA)
        if record.exc_info:
            fields[TRACEBACK] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return self._redact(self._encode(fields))


class TextLines(logging.Formatter):
    """`time LEVEL logger: message`, with the ids of the context after it; a traceback follows in lines of its own."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        ids = " ".join(f"{name}={value}" for name, value in context.get().items() if name not in record.__dict__)
        message = record.getMessage().translate(_ESCAPES)
        line = f"{format_time(record.created)} {record.levelname} {record.name}: {message}"
        line += f" [{ids.translate(_ESCAPES)}]" if ids else ""
        if text := record.__dict__.get(TRACEBACK) or (record.exc_info and self.formatException(record.exc_info)):
            line += f"\n{text}"
        return self._redact(line)


def format_time(seconds: float) -> str:
    """Return a Unix time as RFC 3339, in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"

"""Log formats: a record as one JSON object, or as text. Neither contains a secret."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from service.logs import context

TRACEBACK = "traceback"
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: "\\n", 13: "\\r", 9: "\\t"}
_UNUSED = ("color_message", "taskName")  # uvicorn's and asyncio's fields of a record


class JsonLines(JsonFormatter):
    """Fields: time (UTC, RFC 3339), level, logger, message; the ids of the context, those of `extra`, traceback."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": TRACEBACK, "stack_info": "stack"},
            json_ensure_ascii=False,
            json_default=str,
        )
        self.reserved_attrs.update(_UNUSED)
        self._skip_fields.update(_UNUSED)
        self._redact = redact

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {"time": log_data.pop("time"), **log_data}

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        for name, value in context.get().items():
            log_data.setdefault(name, value)
        log_data["time"] = format_time(record.created)

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


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

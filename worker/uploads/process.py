"""Upload reader processes: their events, error handling and exit codes, common to ingestion and weight import.

Exit codes: 0 success, 1 invalid upload, 70 other failure, 75 stopped.
"""

import errno
import hashlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ssl_core.data.items import PackError
from ssl_core.errors import BadWeights, Corrupt, StorageFailed, StorageFull, is_out_of_memory
from ssl_core.events import Event, Failed, Stopped, to_line
from ssl_core.files import FULL, describe
from worker.uploads import sandbox

UPLOAD = "upload"  # its own name is its SHA-256


class StopRequested(BaseException):
    """SIGTERM was received."""


def stop_on_sigterm() -> None:
    """Make SIGTERM raise StopRequested in the main thread."""
    signal.signal(signal.SIGTERM, _raise_stop_requested)


def check_sha256(upload: Path, sha256: str | None) -> None:
    """Compare the upload with the SHA-256 of its reception, if given. Raises Corrupt and OSError."""
    if sha256 is None:
        return
    with upload.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise Corrupt(UPLOAD)


def catch_errors(events: Iterator[Event], upload_error: type[PackError | BadWeights]) -> Iterator[Event]:
    """Yield the events, and a Failed event for an exception; `upload_error` means an invalid upload."""
    try:
        yield from events
    except upload_error as error:
        yield Failed(error.code, error.detail, data={"errors": error.errors})
    except Corrupt as error:
        yield Failed(error.code, str(error), data=error.data)
    except sandbox.CpuTimeExceeded:
        yield Failed("out_of_time", "Reading this upload takes more CPU time than the service allows.")
    except OSError as error:
        yield _storage_failure(error)
    except Exception as error:  # noqa: BLE001 — a bug: the traceback goes to the log, and the job is retried
        if is_out_of_memory(error):
            yield Failed("out_of_memory", "Reading this upload takes more memory than the service allows.")
            return
        traceback.print_exc()
        yield Failed("internal", f"Reading the upload failed: {type(error).__name__}.", retry=True)


def write_events(events: Iterator[Event], format_event: Callable[[Any], str] | None) -> int:
    """Write the events to stdout, as JSON lines or by `format_event`, and return the exit status."""
    status = 70
    try:
        for event in events:
            status = _write_event(event, format_event)
    except StopRequested:
        status = _write_event(Stopped(step=0), format_event)
    return status


def _storage_failure(error: OSError) -> Failed:
    if error.errno == errno.EFBIG:
        return Failed("too_much_data", "The result is larger than the service allows.")
    if error.errno in FULL:
        return Failed(StorageFull.code, "The storage is full.", retry=True)
    return Failed(StorageFailed.code, f"Reading the upload failed: {describe(error)}.", retry=True)


def _write_event(event: Event, format_event: Callable[[Any], str] | None) -> int:
    """Write the event to stdout and return the exit status if it is the last."""
    if format_event is None:
        sys.stdout.write(to_line(event))
    else:
        sys.stdout.write(_format_failure(event) or format_event(event))
    sys.stdout.flush()
    match event:
        case Failed(retry=retry):
            return 70 if retry else 1
        case Stopped():
            return 75
    return 0


def _format_failure(event: Event) -> str | None:
    match event:
        case Failed(code=code, message=message, data=data):
            lines = [f"  {item['pointer']}: {item['detail']}\n" for item in data.get("errors", [])]
            return f"{code}: {message}\n{''.join(lines)}"
        case Stopped():
            return "stopped\n"
    return None


def _raise_stop_requested(number: int, frame: FrameType | None) -> None:
    raise StopRequested

"""A reader of uploads: what every process that opens one has in common, from its first event to its exit status.

It ends with 0, or 1 when the upload is at fault, 70 when something else is, 75 when it was told to stop.
"""

import errno
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ssl_core.data.pack import PackError
from ssl_core.errors import BadWeights, StorageFull, is_out_of_memory
from ssl_core.events import Event, Failed, Stopped, to_line
from ssl_core.files import FULL
from worker.uploads import sandbox


class Told(BaseException):
    """The process was told to stop."""


def heed() -> None:
    """Have SIGTERM raise Told."""
    signal.signal(signal.SIGTERM, _stop)


def guarded(events: Iterator[Event], refusal: type[PackError | BadWeights]) -> Iterator[Event]:
    """Yield the events; whatever is raised instead of the last becomes a Failed. `refusal`: the upload is at fault."""
    try:
        yield from events
    except refusal as error:
        yield Failed(error.code, error.detail, data={"errors": error.errors})
    except sandbox.OutOfTime:
        yield Failed("out_of_time", "Reading this upload takes more time than the service gives.")
    except OSError as error:
        yield _disk(error)
    except Exception as error:  # noqa: BLE001 - a mistake of ours: the trace goes to the log, and another attempt is made
        if is_out_of_memory(error):
            yield Failed("out_of_memory", "Reading this upload takes more memory than the service gives.")
            return
        traceback.print_exc()
        yield Failed("internal", f"Reading the upload failed: {type(error).__name__}.", retry=True)


def tell(events: Iterator[Event], sentence: Callable[[Any], str] | None) -> int:
    """Write the events to stdout, as JSON lines or in sentences for people, and return the exit status."""
    status = 70
    try:
        for event in events:
            status = _say(event, sentence)
    except Told:
        status = _say(Stopped(step=0), sentence)
    return status


def _disk(error: OSError) -> Failed:
    if error.errno == errno.EFBIG:
        return Failed("too_much_data", "What the upload becomes is larger than the service takes.")
    if error.errno in FULL:
        return Failed(StorageFull.code, "The storage is full.", retry=True)
    return Failed("storage", f"Reading the upload failed: {error.strerror or error}.", retry=True)


def _say(event: Event, sentence: Callable[[Any], str] | None) -> int:
    """Write the event to stdout and return the exit status, should it be the last."""
    if sentence is None:
        sys.stdout.write(to_line(event))
    else:
        sys.stdout.write(_ending(event) or sentence(event))
    sys.stdout.flush()
    match event:
        case Failed(retry=retry):
            return 70 if retry else 1
        case Stopped():
            return 75
    return 0


def _ending(event: Event) -> str | None:
    match event:
        case Failed(code=code, message=message, data=data):
            lines = [f"  {item['pointer']}: {item['detail']}\n" for item in data.get("errors", [])]
            return f"{code}: {message}\n{''.join(lines)}"
        case Stopped():
            return "stopped\n"
    return None


def _stop(number: int, frame: FrameType | None) -> None:
    raise Told

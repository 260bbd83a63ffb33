"""A writer under test: how it writes into a data folder, and how what it leaves there is loaded."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core.events import Event, Failed, Log

# Names that no finished file has: of temporary files, of request bodies, and of folders that are being removed.
TEMPORARY = re.compile(r"(^|/)(\.|tmp/.|removed-)|\.(tmp|upload|part)$")


def _nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Writer:
    """One function of the product that writes files.

    write: writes into the data folder, and returns {} or the error that a user would see, {code, detail}.
    look: loads what is there and returns "old", "new" or "absent"; raises for anything else.
    prepare: what is in the folder before; states: what may be there after a fault, beside "new".
    live, known: the paths that the database names, as `service.garbage` lists them, for the keeper's sweep; with a
    database, `sweep` does it.
    ignored: ends of file names whose calls are left alone.
    user_folder: whether the folder is the user's own, which no keeper sweeps: then the next write removes what a killed
    one left.
    paths_in_errors: whether the error may name a path, as that of a command run by the operator does.
    is_slow: a case takes seconds, so that `make test` draws none of them.
    """

    name: str
    source: str
    write: Callable[[Path], dict[str, Any]]
    look: Callable[[Path], str]
    prepare: Callable[[Path], None] = _nothing
    states: tuple[str, ...] = ("absent",)
    live: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    sweep: Callable[[Path], None] | None = None
    ignored: tuple[str, ...] = ()
    user_folder: bool = False
    paths_in_errors: bool = False
    is_slow: bool = False


def error_of(events: list[Event]) -> dict[str, Any]:
    """Return the error of a run that has ended in Failed, or {}; of a warning, its code."""
    for event in events:
        if isinstance(event, Failed):
            return {"code": event.code, "detail": event.message, "retry": event.retry}
        if isinstance(event, Log) and event.level == "warning":
            return {"code": event.code, "detail": event.message, "retry": True}
    return {}

"""The log context: ids that every record logged in this task or thread has, such as request, owner, job, attempt."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

Ids = dict[str, str | int]
_ids: ContextVar[Ids | None] = ContextVar("log_ids", default=None)


def get() -> Mapping[str, str | int]:
    """Return the ids of the context; empty outside of `bound`."""
    return _ids.get() or {}


def add(name: str, value: str | int) -> None:
    """Add an id to the innermost `bound`, also from a thread that runs with a copy of its context; nothing outside."""
    ids = _ids.get()
    if ids is not None:
        ids[name] = value


@contextmanager
def bound(**ids: str | int) -> Iterator[Ids]:
    """Add ids to the records logged in the block, to those of the enclosing block; yields all of them."""
    found: Ids = {**get(), **ids}
    token = _ids.set(found)
    try:
        yield found
    finally:
        _ids.reset(token)

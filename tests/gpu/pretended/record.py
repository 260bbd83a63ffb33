"""The record: what happened on the pretended GPU, counted by part of a step and by place in the program."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

_PACKAGE = Path(__file__).parent
_ROOT = f"{_PACKAGE.parent.parent.parent}/"


class Kind(StrEnum):
    """What can happen."""

    OPERATOR = "operator"  #: about one kernel
    WAIT = "wait"  #: the host waits until the GPU has done all that was asked of it
    BLOCKING_COPY = "blocking copy"  #: host to device, and the host waits until it is done
    OVERLAPPING_COPY = "overlapping copy"  #: either way, while the host goes on
    NOTE = "note"  #: right, but slow or not deterministic on CUDA
    FAULT = "fault"  #: CUDA would raise an error


class Sighting(NamedTuple):
    """One thing that happened, at one place."""

    kind: Kind
    part: str  # of the step
    what: str  # the operator, or a sentence
    place: str  # file:line of the program, its innermost frame


class Counts:
    """How often each thing happened."""

    def __init__(self, times: Counter[Sighting]) -> None:
        self._times = times

    def count(self, kind: Kind, part: str | None = None) -> int:
        """Return how often a kind of thing happened, in one part or in all."""
        return sum(times for seen, times in self._times.items() if seen.kind == kind and part in (None, seen.part))

    def caught_fault(self) -> str | None:
        """Return an error that CUDA would have raised, of a program that went on nevertheless."""
        faults = [f"{seen.what} ({seen.place}), which was caught" for seen in self._times if seen.kind == Kind.FAULT]
        return faults[0] if faults else None

    def to_json(self, *kinds: Kind) -> list[dict[str, Any]]:
        """Return the sightings of these kinds as plain values, the most frequent first."""
        return [{**seen._asdict(), "times": times} for seen, times in self._times.most_common() if seen.kind in kinds]


class Record:
    """Counts sightings until they are taken."""

    def __init__(self) -> None:
        self.part = ""  # of the step, of the main thread and the backward pass; other threads have their own
        self._threads = threading.local()
        self._times: Counter[Sighting] = Counter()

    def add(self, kind: Kind, what: str) -> None:
        """Count one sighting at the program's present place."""
        self._times[Sighting(kind, getattr(self._threads, "part", self.part), what, _find_place())] += 1

    def take(self) -> Counts:
        """Return the counts since the last call."""
        times, self._times = self._times, Counter()
        return Counts(times)

    @contextmanager
    def in_thread(self, part: str) -> Iterator[None]:
        """Count what this thread does in the block as a part of its own."""
        self._threads.part = part
        try:
            yield
        finally:
            del self._threads.part


RECORD = Record()


def _find_place() -> str:
    """The innermost frame of this repository's code outside this package, as file:line."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_ROOT) and not file.startswith(str(_PACKAGE)) and "site-packages" not in file:
            return f"{file.removeprefix(_ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"

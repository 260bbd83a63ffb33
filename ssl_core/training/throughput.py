"""A stopwatch for training: the time that steps take and the part of it spent waiting for images.

Evaluations and checkpoints do not count. On a GPU a step's work is queued, so a lap is exact only after a value was
read.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Lap:
    steps: int
    seconds: float
    waited: float  # seconds of them


class Stopwatch:
    """Counts from the first step of a run, over all attempts when `seconds` is restored."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._steps, self._lap_seconds, self._lap_waited = 0, 0.0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        taken = time.perf_counter() - start
        self._lap_waited += taken
        self._add(taken)

    @contextmanager
    def running(self) -> Iterator[None]:
        """A step."""
        start = time.perf_counter()
        yield
        self._steps += 1
        self._add(time.perf_counter() - start)

    def lap(self) -> Lap:
        """Return what was counted since the last lap, and begin another."""
        lap = Lap(self._steps, self._lap_seconds, self._lap_waited)
        self._steps, self._lap_seconds, self._lap_waited = 0, 0.0, 0.0
        return lap

    def _add(self, seconds: float) -> None:
        self._lap_seconds += seconds
        self.seconds += seconds

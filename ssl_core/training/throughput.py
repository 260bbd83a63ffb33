"""Throughput: the time that training steps take, and the part of it spent waiting for images.

Evaluations and checkpoints do not count. On a GPU a step's work is queued, so a window is exact only after a value was
read.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    steps: int
    seconds: float
    waited: float  # seconds of these spent waiting for images


class Throughput:
    """Counts from the first step of a run, over all attempts when `seconds` is restored."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._steps, self._window_seconds, self._window_waited = 0, 0.0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block as time spent waiting for images."""
        start = time.perf_counter()
        yield
        taken = time.perf_counter() - start
        self._window_waited += taken
        self._add(taken)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the block as a step."""
        start = time.perf_counter()
        yield
        self._steps += 1
        self._add(time.perf_counter() - start)

    def window(self) -> Window:
        """Return what was counted since the last call, and begin another window."""
        window = Window(self._steps, self._window_seconds, self._window_waited)
        self._steps, self._window_seconds, self._window_waited = 0, 0.0, 0.0
        return window

    def _add(self, seconds: float) -> None:
        self._window_seconds += seconds
        self.seconds += seconds

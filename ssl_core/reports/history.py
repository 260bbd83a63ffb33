"""Metric history of a run: downsampled series of its metrics, for curves and TensorBoard.

It depends on the points added and their order alone, and is part of the checkpoint: a resumed run has the curves of an
uninterrupted one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_POINTS = 1_000  # of each metric
_COLUMNS = ("step", "time", "value")


@dataclass
class Series:
    """One metric: every `stride`-th point and the last one. `time` is Unix seconds; non-finite values are None."""

    step: list[int] = field(default_factory=list)
    time: list[float] = field(default_factory=list)
    value: list[float | None] = field(default_factory=list)
    stride: int = 1
    seen: int = 0  # points added in total

    def add(self, step: int, time: float, value: float | None) -> None:
        """Add a point; at MAX_POINTS every second one is dropped and the stride doubles."""
        if self.seen and (self.seen - 1) % self.stride:  # the last point is not on the stride
            self._select(slice(0, -1))
        elif len(self.step) == MAX_POINTS:
            self._select(slice(0, None, 2))
            self.stride *= 2
        for column, item in zip(_COLUMNS, (step, time, value), strict=True):
            getattr(self, column).append(item)
        self.seen += 1

    def _select(self, points: slice) -> None:
        for column in _COLUMNS:
            setattr(self, column, getattr(self, column)[points])


class History:
    """The series of a run, by metric name."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}

    @classmethod
    def of(cls, state: Mapping[str, Mapping[str, Any]]) -> "History":
        """Return the history of a `state`."""
        history = cls()
        history.series = {name: Series(**fields) for name, fields in state.items()}
        return history

    def add(self, step: int, time: float, values: Mapping[str, float | None]) -> None:
        """Add a point to the series of every metric in `values`."""
        for name, value in values.items():
            self.series.setdefault(name, Series()).add(step, time, value)

    def state(self) -> dict[str, dict[str, Any]]:
        """Return plain values for a checkpoint."""
        return {name: asdict(series) for name, series in self.series.items()}

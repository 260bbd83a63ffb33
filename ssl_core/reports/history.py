"""The history of a run: the points of its metrics that are kept for its curves, bounded in number.

It is a function of the points added, in their order, and goes with the checkpoint: a run that was stopped and goes on
draws the curves of one that was not.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_POINTS = 1_000  # of each metric
_COLUMNS = ("step", "time", "value")


@dataclass
class Series:
    """One metric: every `stride`-th of its points, and the last. `time` is Unix seconds; a value that was not finite
    is None.
    """

    step: list[int] = field(default_factory=list)
    time: list[float] = field(default_factory=list)
    value: list[float | None] = field(default_factory=list)
    stride: int = 1
    seen: int = 0  # points that were ever added

    def add(self, step: int, time: float, value: float | None) -> None:
        """Add the next point; when there are too many, every second one goes."""
        if self.seen and (self.seen - 1) % self.stride:  # the last was there only for being the last
            self._keep(slice(0, -1))
        elif len(self.step) == MOST_POINTS:
            self._keep(slice(0, None, 2))
            self.stride *= 2
        for column, item in zip(_COLUMNS, (step, time, value), strict=True):
            getattr(self, column).append(item)
        self.seen += 1

    def _keep(self, places: slice) -> None:
        for column in _COLUMNS:
            setattr(self, column, getattr(self, column)[places])


class History:
    """The series of a run, by the metric's name."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}

    @classmethod
    def of(cls, state: Mapping[str, Mapping[str, Any]]) -> "History":
        """Return the history whose `state` this is."""
        history = cls()
        history.series = {name: Series(**fields) for name, fields in state.items()}
        return history

    def add(self, step: int, time: float, values: Mapping[str, float | None]) -> None:
        """Add a point to the series of every name."""
        for name, value in values.items():
            self.series.setdefault(name, Series()).add(step, time, value)

    def state(self) -> dict[str, dict[str, Any]]:
        """Return plain values, for a checkpoint."""
        return {name: asdict(series) for name, series in self.series.items()}

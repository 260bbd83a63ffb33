"""A figure: what a stage measured, and whether it is as good as it should be."""

from dataclasses import dataclass
from typing import Literal

State = Literal["measured", "passed", "not met", "failed", "skipped"]


@dataclass(frozen=True)
class Figure:
    """A number, or a text, with its unit. `state` says whether the goal is reached; measured: there is none."""

    name: str
    value: float | str
    unit: str = ""
    goal: str = ""
    state: State = "measured"

    @property
    def text(self) -> str:
        """The value and its unit: `12,345 views/s`."""
        if isinstance(self.value, str):
            return self.value
        digits = 0 if isinstance(self.value, int) or abs(self.value) >= 1000 else 1 if abs(self.value) >= 10 else 3
        return f"{self.value:,.{digits}f} {self.unit}".rstrip()


def at_least(name: str, value: float, unit: str, goal: float | None) -> Figure:
    """Return a figure that should be the goal or more; None: it has no goal."""
    if goal is None:
        return Figure(name, value, unit)
    return Figure(name, value, unit, f"≥ {goal:,g}", "passed" if value >= goal else "not met")


def check(name: str, passed: bool, value: float | str, goal: str, unit: str = "") -> Figure:
    """Return a figure that has to be as the goal says: the stage fails if it is not."""
    return Figure(name, value, unit, goal, "passed" if passed else "failed")


def skipped(name: str, reason: str) -> Figure:
    """Return the figure of what cannot be measured here."""
    return Figure(name, reason, state="skipped")

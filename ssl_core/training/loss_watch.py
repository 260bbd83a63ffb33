"""Loss watch: finds a loss that explodes while it is still a number.

The median of the last five reported losses is compared with the least such median and with the first loss. A loss
has exploded when it is 10 above the least, and 10 times the least or 3 times the first: the losses of SimSiam and BYOL,
which are bounded, never are, and the contrastive ones only when positives are further apart than negatives.
"""

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from ssl_core.events import Log

_WINDOW = 5  # reported losses
_RISE, _OF_BEST, _OF_FIRST = 10.0, 10.0, 3.0


class LossWatch:
    """The losses of a run, and whether their explosion has been reported, which it is once."""

    def __init__(self) -> None:
        self._recent: list[float] = []
        self._first: float | None = None
        self._best = math.inf
        self._is_reported = False

    def update(self, step: int, loss: float, lr: float) -> Log | None:
        """Count a reported loss; return a warning when it has exploded."""
        if not math.isfinite(loss):
            return None  # that ends the run
        self._recent = [*self._recent, loss][-_WINDOW:]
        if self._first is None:
            self._first = self._best = loss
        if len(self._recent) < _WINDOW:
            return None
        now = median(self._recent)
        self._best = min(self._best, now)
        if self._is_reported or not self._has_exploded(now, self._first):
            return None
        self._is_reported = True
        evidence = {"step": step, "loss": now, "best": self._best, "first": self._first, "lr": lr}
        message = (
            f"The loss is {now:.4g}, after {self._best:.4g}: the run diverges. A lower learning rate, a longer warm-up"
            " or gradient clipping may help."
        )
        return Log("warning", message, "diverging", evidence)

    def _has_exploded(self, now: float, first: float) -> bool:
        is_far = now > _OF_BEST * abs(self._best) or now > _OF_FIRST * abs(first)
        return now > self._best + _RISE and is_far

    def state(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        best = None if math.isinf(self._best) else self._best
        return {"recent": self._recent, "first": self._first, "best": best, "reported": self._is_reported}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._recent, self._first = list(state["recent"]), state["first"]
        self._best = math.inf if state["best"] is None else state["best"]
        self._is_reported = state["reported"]

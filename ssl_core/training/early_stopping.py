"""Early stopping: a run ends when its metric has had no new best for a number of measurements."""

import math
from collections.abc import Mapping
from typing import Any

from ssl_core.config import EarlyStop
from ssl_core.config.requirements import knn_needs_labels
from ssl_core.errors import LabelsNeeded

METRICS = {"rankme": "train/rankme", "knn": "online/knn"}


class EarlyStopping:
    """The state of a config's `early_stop`; without one the run is never stopped."""

    def __init__(self, settings: EarlyStop | None, *, evaluated: bool) -> None:
        """evaluated: whether kNN is measured. Raises LabelsNeeded when the metric never would be."""
        self._settings = settings
        self.best: float | None = None
        self.waited = 0  # measurements since the best
        self.stopped = False
        if self._settings is not None and self._settings.metric == "knn" and not evaluated:
            raise LabelsNeeded(knn_needs_labels())

    def update(self, values: Mapping[str, float], epoch: float) -> None:
        """Count a measurement, made after that many epochs."""
        settings = self._settings
        if settings is None or METRICS[settings.metric] not in values:
            return
        value = values[METRICS[settings.metric]]
        if math.isfinite(value) and (self.best is None or value > self.best + settings.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self.stopped = self.waited >= settings.patience and epoch >= settings.min_epochs

    def reason(self, step: int) -> tuple[str, dict[str, Any]]:
        """Return why the run is stopped at that step, as a sentence and as data."""
        assert self._settings is not None
        metric = self._settings.metric
        best = "no number" if self.best is None else f"{self.best:.4g}"
        text = f"Stopped early: the best {metric}, {best}, is {self.waited} measurements old."
        return text, {"step": step, "metric": metric, "best": self.best, "measurements": self.waited}

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "over": self.stopped}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.best, self.waited, self.stopped = state["best"], state["waited"], state["over"]

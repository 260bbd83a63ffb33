"""Patience: how long a run goes on without a new best of what it is watched by."""

import math
from collections.abc import Mapping
from typing import Any

from ssl_core.config import EarlyStop
from ssl_core.errors import LabelsNeeded

METRICS = {"rankme": "train/rankme", "knn": "online/knn"}


class Patience:
    """What `early_stop` asks for; without it, patience never ends."""

    def __init__(self, settings: EarlyStop | None, *, judged: bool) -> None:
        """judged: whether kNN is measured. Raises LabelsNeeded when the metric would never be."""
        self._settings = settings
        self.best: float | None = None
        self.waited = 0  # measurements since the best
        self.over = False
        if self._settings is not None and self._settings.metric == "knn" and not judged:
            raise LabelsNeeded("early_stop on knn needs labelled images of at least two classes; rankme needs none.")

    def heed(self, values: Mapping[str, float], epoch: float) -> None:
        """Take in what was measured once so many epochs were done."""
        settings = self._settings
        if settings is None or METRICS[settings.metric] not in values:
            return
        value = values[METRICS[settings.metric]]
        if math.isfinite(value) and (self.best is None or value > self.best + settings.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self.over = self.waited >= settings.patience and epoch >= settings.min_epochs

    def told(self, step: int) -> tuple[str, dict[str, Any]]:
        """Return the sentence that ends a run at that step, and its evidence."""
        assert self._settings is not None
        metric = self._settings.metric
        best = "no number" if self.best is None else f"{self.best:.4g}"
        text = f"Stopped early: the best {metric}, {best}, is {self.waited} measurements old."
        return text, {"step": step, "metric": metric, "best": self.best, "measurements": self.waited}

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "over": self.over}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.best, self.waited, self.over = state["best"], state["waited"], state["over"]

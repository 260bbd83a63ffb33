"""Sweeps: the keeper's side, which asks Optuna's pruners."""

from collections.abc import Sequence
from importlib import import_module

from service.db.models import Sweep
from service.sweeps.progress import Judged, Report


def judge(sweep: Sweep, trials: Sequence[Judged], fresh: dict[int, list[Report]]) -> dict[int, int]:
    """See `service.sweeps.progress.Judge`. Optuna and NumPy are loaded by the first sweep that has a pruner."""
    found: dict[int, int] = import_module("worker.sweeps.pruning").judge(sweep, trials, fresh)
    return found

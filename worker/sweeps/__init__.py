"""Sweeps: the keeper's side, which asks Optuna's pruners."""

from collections.abc import Sequence
from importlib import import_module

from service.db.models import Sweep
from service.sweeps.progress import Report, Reported


def prune(sweep: Sweep, trials: Sequence[Reported], fresh: dict[int, list[Report]]) -> dict[int, int]:
    """See `service.sweeps.progress.Prune`. Optuna and NumPy are loaded by the first sweep that has a pruner."""
    found: dict[int, int] = import_module("worker.sweeps.pruning").prune(sweep, trials, fresh)
    return found

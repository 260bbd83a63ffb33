"""Every method trains, and so does SimCLR with LARS, Muon, fp32 and a chunk size."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.acceptance.figure import Figure, at_least, check
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.training_runs import TrainingRun, run_all
from ssl_core.methods import METHODS

_IMAGES = 2000
_TOGETHER = 4  # runs at a time on one GPU
_GOAL = 20  # % of kNN after 20 epochs; ten classes


def measure(setup: Setup, names: Sequence[str] = ()) -> Iterator[Figure]:
    """names: of the cases that are run; empty: all."""
    cases = {name: fields for name, fields in _cases(setup).items() if not names or name in names}
    runs = {name: _make_run(setup, name, fields) for name, fields in cases.items()}
    run_all(runs.values(), together=1 if setup.tiny else _TOGETHER)
    for name, each in runs.items():
        yield from _judge(setup, name, each)


def _cases(setup: Setup) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {
        "LARS": {"optimizer": {"name": "lars"}},
        "Muon": {"optimizer": {"name": "muon"}},
        "fp32": {"precision": "fp32"},
        "chunk_size": {"chunk_size": 16 if setup.tiny else 64},
    }
    methods = {name: {"method": {"name": name}} for name in METHODS}
    return methods | {f"simclr, {name}": fields for name, fields in settings.items()}


def _make_run(setup: Setup, name: str, fields: dict[str, Any]) -> TrainingRun:
    epochs, images = (1, 64) if setup.tiny else (20, _IMAGES)
    length = {"epochs": epochs, "subset": images, "batch_size": 32 if setup.tiny else 256}
    evaluation = {"evaluation": {"every_epochs": epochs, "max_images": images}}
    return TrainingRun(setup.config(**length, **evaluation, **fields), setup.data, setup.out / "methods" / name)


def _judge(setup: Setup, name: str, each: TrainingRun) -> Iterator[Figure]:
    try:
        summary = each.summary
    except (OSError, RuntimeError) as error:
        yield check(name, False, str(error), "trains")
        return
    losses = each.metrics("train/loss")
    is_finite = bool(losses) and math.isfinite(losses[-1])
    collapsed = ", collapsed" if summary["collapsed"] else ""
    yield check(f"{name}: loss", is_finite, f"{losses[0]:.3f} to {losses[-1]:.3f}{collapsed}", "finite")
    yield at_least(f"{name}: kNN", 100 * (summary.get("knn") or 0), "%", setup.accuracy_goal(_GOAL))

"""Exactness: the weights of a run are the same a second time, and when it is killed and resumed."""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.acceptance.figure import Figure, check
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.training_runs import TrainingRun, run_all

COMPILED = "compiled"
_ARMS = ("whole", "again", "cut")


def measure(setup: Setup, names: Sequence[str] = ()) -> Iterator[Figure]:
    """names: of the cases that are run; empty: all but the compiled one."""
    cases = [name for name in _cases(setup) if (name in names if names else name != COMPILED)]
    runs = {(case, arm): _make_run(setup, case, arm) for case in cases for arm in _ARMS}
    statuses = dict(zip(runs, run_all(runs.values(), _together(setup)), strict=True))
    cut = [replace(each, killed_at=None) for (_, arm), each in runs.items() if arm == "cut"]
    run_all(cut, _together(setup))
    for case in cases:
        was_killed = statuses[case, "cut"] == -signal.SIGKILL
        whole, again, resumed = (_read_weights(runs[case, arm]) for arm in _ARMS)
        yield _compare(f"{case}, twice", again == whole)
        yield _compare(f"{case}, killed and resumed", was_killed and resumed == whole)


def _cases(setup: Setup) -> dict[str, dict[str, Any]]:
    selective = {"name": "resnet50", "selective_kernel": True, "width": 0.0625 if setup.tiny else 1.0, "stem": "cifar"}
    imagenet = setup.backbone | {"stem": "imagenet"}
    return {
        "BYOL": {"method": {"name": "byol"}},
        "ImageNet stem": {"method": {"name": "byol"}, "backbone": imagenet},
        "selective kernels": {"backbone": selective},
        COMPILED: {"method": {"name": "byol"}, "compile": True},
    }


def _make_run(setup: Setup, case: str, arm: str) -> TrainingRun:
    """A run of 60 steps, in small of 4, which kills itself some steps after a checkpoint."""
    epochs, images, batch = (2, 32, 16) if setup.tiny else (4, 2000, 128)
    config = setup.config(epochs=epochs, subset=images, batch_size=batch) | _cases(setup)[case]
    config["checkpoints"] = {"every_steps": 2 if setup.tiny else 20}
    killed_at = None if arm != "cut" else 3 if setup.tiny else 29
    return TrainingRun(config, setup.data, setup.out / "exact" / f"{case} {arm}", killed_at)


def _together(setup: Setup) -> int:
    return 1 if setup.tiny else 9


def _read_weights(each: TrainingRun) -> bytes:
    _ = each.summary  # raises if it did not finish
    return (each.out / "model" / "weights.safetensors").read_bytes()


def _compare(name: str, equal: bool) -> Figure:
    return check(name, equal, "equal weights" if equal else "different weights", "equal")

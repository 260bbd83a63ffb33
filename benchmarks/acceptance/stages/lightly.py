"""Training compared with lightly, as documented and tuned: the same network, batch and images, SGD on both sides."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.acceptance.figure import Figure, at_least, skipped
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.stages.speed import measure_rate

_GOALS = {"docs": 3, "tuned": 1.5}
_WORKERS = {"docs": 8, "tuned": 16}


def measure(setup: Setup) -> Iterator[Figure]:
    if importlib.util.find_spec("lightly") is None:
        yield skipped("over lightly", "lightly is not installed")
        return
    ours = measure_rate(setup, "lightly", 1 if setup.tiny else 8)
    yield Figure("ours", ours, "views/s")
    for arm in ("tuned",) if setup.tiny else _GOALS:
        theirs = _measure_lightly(setup, arm)
        yield Figure(f"lightly, {arm}", theirs, "views/s")
        yield at_least(f"over lightly, {arm}", ours / theirs, "times", setup.goal(_GOALS[arm]))


def _measure_lightly(setup: Setup, arm: str) -> float:
    seconds = 1 if setup.tiny else 9
    command = [sys.executable, "-m", "benchmarks.lightly_simclr", str(setup.data), "--arm", arm]
    command += ["--seconds", str(seconds), "--warm-up", str(seconds / 3), "--device", setup.device]
    command += ["--backbone", json.dumps(setup.backbone), "--batch", str(setup.batch_size)]
    command += ["--workers", "0" if setup.tiny else str(_WORKERS[arm]), "--subset", "320" if setup.tiny else "50000"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["views_per_second"]

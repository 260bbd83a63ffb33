"""`python -m tests.acceptance first`: a slice of the acceptance, with stages that hang, crash and miss their goal."""

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

from benchmarks.acceptance.command import main
from benchmarks.acceptance.figure import Figure, at_least, check, skipped
from benchmarks.acceptance.parts import PARTS
from benchmarks.acceptance.process import Stage
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.stages import exact, methods


def hang(setup: Setup) -> Iterator[Figure]:
    """Start a child, name its process id and sleep."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield Figure("child", child.pid)
    time.sleep(600)


def crash(setup: Setup) -> Iterator[Figure]:
    yield Figure("before", 1)
    sys.stdout.write("about to crash\n")
    raise ValueError("crashed on purpose")


def miss(setup: Setup) -> Iterator[Figure]:
    yield at_least("speed", 1.0, "views/s", 2.0)
    yield skipped("peer", "it is not installed")


def differ(setup: Setup) -> Iterator[Figure]:
    yield check("weights", False, "different weights", "equal")


BROKEN = {"hang": Stage(hang, 2), "crash": Stage(crash, 10), "miss": Stage(miss, 10), "differ": Stage(differ, 10)}
SMALLER = {
    "methods": Stage(partial(methods.measure, names=["byol"]), 60),
    "exact": Stage(partial(exact.measure, names=["BYOL"]), 60),
}

if __name__ == "__main__":
    sys.exit(main({"first": PARTS["first"] | SMALLER | BROKEN}))

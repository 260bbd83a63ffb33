"""Process of a stage: forked, with a limit of time, and killed with all processes that it has started."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.acceptance.figure import Figure
from benchmarks.acceptance.setup import Setup
from ssl_core.distributed.parent_death import die_with_parent

# A fork has torch already imported, which takes 3 s of a processor. The parent never computes nor touches a GPU.
FORK = multiprocessing.get_context("fork")
Measure = Callable[[Setup], Iterator[Figure]]
_LAST_LINES = 12


@dataclass(frozen=True)
class Stage:
    """A stage: what it measures, one figure after the other, and how long it may take."""

    measure: Measure
    limit_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What came of a stage. `error` is why it failed, with the last lines of its output; None: it did not."""

    stage: str
    figures: list[Figure]
    seconds: float
    error: str | None

    @property
    def failed(self) -> bool:
        return self.error is not None or any(figure.state == "failed" for figure in self.figures)


def run_stage(name: str, stage: Stage, setup: Setup) -> Outcome:
    """Run a stage to its end or its limit. The figures that it yielded before a crash or the limit are kept."""
    folder = setup.out / name
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run, which the trainings would go on from
    folder.mkdir(parents=True)
    figures, output = folder / "figures.jsonl", folder / "output.log"
    started = time.monotonic()
    process = FORK.Process(target=_work, args=(stage.measure, setup, figures, output, os.getpid()))
    process.start()
    try:
        process.join(stage.limit_seconds)
        late = process.is_alive()
    finally:
        _kill(process)
    lines = figures.read_text().splitlines() if figures.exists() else []
    found = [Figure(**json.loads(line)) for line in lines if line.endswith("}")]
    return Outcome(name, found, time.monotonic() - started, _explain(late, stage, process.exitcode, output))


def _work(measure: Measure, setup: Setup, figures: Path, output: Path, parent: int) -> None:
    os.setsid()
    die_with_parent(parent)
    file = output.open("w", buffering=1)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file.fileno(), stream.fileno())
    try:
        with figures.open("w", buffering=1) as lines:
            for figure in measure(setup):
                lines.write(json.dumps(asdict(figure)) + "\n")
    except Exception:  # noqa: BLE001 - the next stage is run whatever this one raises
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _kill(stage: BaseProcess) -> None:
    """Kill the stage, if it still runs, and what it has left running."""
    assert stage.pid is not None
    try:
        os.killpg(stage.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has ended, and so have those that it started
        pass
    stage.kill()
    stage.join()


def _explain(late: bool, stage: Stage, status: int | None, output: Path) -> str | None:
    if not late and status == 0:
        return None
    reason = f"killed at its limit of {stage.limit_seconds:g} s" if late else f"ended with status {status}"
    lines = output.read_text(errors="replace").splitlines() if output.exists() else []
    return "\n".join([reason, *lines[-_LAST_LINES:]])

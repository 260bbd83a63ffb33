"""Training runs of the core, several at a time, each in a process of its own."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.acceptance.process import FORK
from ssl_core import config as configs
from ssl_core.device import keep_freed_memory
from ssl_core.distributed.parent_death import die_with_parent
from ssl_core.events import Metrics, to_line
from ssl_core.inputs import Inputs
from ssl_core.run import run
from ssl_core.serialization import checkpoint_files

Event = dict[str, Any]


@dataclass(frozen=True)
class TrainingRun:
    """A run to start: its config, its data, its folder, and the step at which it kills itself, if any."""

    config: dict[str, Any]
    data: Path
    out: Path
    killed_at: int | None = None
    model: Path | None = None  # of an evaluation

    @property
    def events(self) -> list[Event]:
        """The events of the last attempt."""
        return [json.loads(line) for line in (self.out / "events.jsonl").read_text().splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """The summary of the finished run. Raises RuntimeError with the last event if it did not finish."""
        last = self.events[-1] if self.events else {"event": "nothing"}
        if last["event"] != "result":
            raise RuntimeError(f"{self.out.name} ended with {last.get('message', last)}")
        return last["summary"]

    def metrics(self, name: str) -> list[float]:
        """The values of a metric, by step."""
        found = [event["values"].get(name) for event in self.events if event["event"] == "metrics"]
        return [value for value in found if value is not None]

    def carry_out(self) -> None:
        """Run it in this process."""
        for _ in self.attempt():
            pass

    def attempt(self) -> Generator[Event, None, None]:
        """Run it in this process, from the newest checkpoint in its folder on; its events also go to a file there."""
        keep_freed_memory()
        self.out.mkdir(parents=True, exist_ok=True)
        parsed = configs.parse(self.config, self.config["kind"])
        saved = checkpoint_files.find_newest(self.out / parsed.checkpoint_folder)
        with (self.out / "events.jsonl").open("w", buffering=1) as lines:
            for event in run(parsed, Inputs(self.data, self.model, saved), self.out):
                lines.write(line := to_line(event))
                if self.killed_at and isinstance(event, Metrics) and event.step >= self.killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield json.loads(line)


def run_all(runs: Iterable[TrainingRun], together: int) -> list[int | None]:
    """Carry the runs out, so many at a time; return the exit status of each, that of a killed one negative."""
    running: list[BaseProcess] = []
    started: list[BaseProcess] = []
    for each in runs:
        if len(running) == together:
            connection.wait([process.sentinel for process in running])
            running = [process for process in running if process.exitcode is None]
        process = FORK.Process(target=_carry_out, args=(each, os.getpid()))
        process.start()
        running.append(process)
        started.append(process)
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def _carry_out(each: TrainingRun, parent: int) -> None:
    die_with_parent(parent)
    each.out.mkdir(parents=True, exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=each.out)  # each attempt compiles for itself
    each.carry_out()


def seconds_of(each: TrainingRun) -> float:
    """Carry a run out in this process and return its seconds."""
    started = time.monotonic()
    each.carry_out()
    return time.monotonic() - started

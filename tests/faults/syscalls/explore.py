"""Exploration: a writer with each fault at each of its calls, and what is left after each.

A case is one fault at one call. After it, in a new process, what is left is loaded; the keeper's sweep removes what
nothing names; and the same write, undisturbed, succeeds.
"""

import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.storage import Storage
from tests.faults.syscalls import durability, tracer
from tests.faults.syscalls.calls import Call
from tests.faults.syscalls.writer import TEMPORARY, Writer

_OLD_SECONDS = 2 * 3600  # age of what a killed write has left, at the next one
_SENTENCE = re.compile(r"[A-ZÄÖÜ0-9/].*[.]", re.DOTALL)


@dataclass
class Report:
    """What was found of one writer. `fell`: a sentence for each case that did not hold."""

    writer: str
    source: str
    calls: int = 0
    cases: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    fell: list[str] = field(default_factory=list)
    seconds: float = 0.0


def explore(writer: Writer, workplace: Path, sample: random.Random | None = None, size: int = 10) -> Report:
    """Run the cases of a writer in new folders under `workplace`: all, or `size` that the generator draws.

    Raises ptrace.NotPermitted.
    """
    return _Exploration(writer, workplace).run(sample, size)


def choose(calls: list[Call], sample: random.Random | None, size: int) -> list[tuple[str, int]]:
    """Return the cases, (fault, position of the call): all, or `size` that are drawn.

    Drawn in turn: a kill at a rename, a sync or a removal; a failure of any call; a kill at another call; a failure of
    a rename, a sync or a removal.
    """
    cases = [
        (fault, place) for fault in tracer.FAULTS for place, call in enumerate(calls) if tracer.applies(fault, call)
    ]
    if sample is None or len(cases) <= size:
        return cases
    strata: dict[tuple[bool, bool], list[tuple[str, int]]] = {}
    for fault, place in cases:
        strata.setdefault((fault in tracer.KILLING, calls[place].is_turn), []).append((fault, place))
    chosen: list[tuple[str, int]] = []
    while len(chosen) < size:
        for stratum in (True, True), (False, sample.random() < 0.5), (True, False), (False, True):
            if left := [case for case in strata.get(stratum, ()) if case not in chosen]:
                chosen.append(sample.choice(left))
    return chosen[:size]


class _Exploration:
    def __init__(self, writer: Writer, workplace: Path) -> None:
        self._writer, self._workplace = writer, workplace
        self._template = workplace / "template"
        self._folders = 0
        self._report = Report(writer.name, writer.source)

    def run(self, sample: random.Random | None, size: int) -> Report:
        report = self._report
        self._template.mkdir(parents=True)
        answer = tracer.run_alone(lambda: self._writer.prepare(self._template) or {})
        if answer:
            raise RuntimeError(f"{self._writer.name} cannot be prepared: {answer}")
        calls = self._record()
        report.calls = sum(call.changes for call in calls)
        for fault, place in choose(calls, sample, size):
            report.cases += 1
            report.faults[fault] += 1
            self._run_case(fault, place, calls[place])
        return report

    def _record(self) -> list[Call]:
        """The calls of an undisturbed write, which are durable in order."""
        folder = self._new_folder()
        run = self._trace(folder, results=True)
        if run.answer != {}:
            raise RuntimeError(f"{self._writer.name} fails without a fault: {run.answer}")
        self._report.fell += [f"order of fsync: {fault}" for fault in durability.find_faults(run.calls)]
        shutil.rmtree(folder)
        return run.calls

    def _run_case(self, fault: str, place: int, call: Call) -> None:
        folder = self._new_folder()
        run = self._trace(folder, fault=fault, at=place)
        where = f"{fault} at call {place}, {_shape(call)}"
        if not run.injected:
            self._report.fell.append(f"{where}: did not happen, for the calls differ from those recorded")
            return
        faults = [*self._check_answer(fault, run, folder), *self._check_rest(self._look_after(folder))]
        self._report.fell += [f"{where}: {found}" for found in faults]
        shutil.rmtree(folder)

    def _check_answer(self, fault: str, run: tracer.Run, folder: Path) -> Iterator[str]:
        """What is wrong with the error that a user sees."""
        if fault in tracer.KILLING:
            if run.answer is not None:
                yield f"it was not killed: {run.answer}"
            return
        if not isinstance(run.answer, dict):
            yield f"it ended with status {run.status}"
        elif "raised" in run.answer:
            yield f"it raised {run.answer['raised'].replace(str(folder), '…')}"
        elif run.answer:
            yield from self._check_sentence(run.answer, folder)

    def _check_sentence(self, error: dict[str, Any], folder: Path) -> Iterator[str]:
        if not re.fullmatch(r"[a-z_]+", str(error.get("code"))):
            yield f"the error has no code: {error}"
        detail = str(error.get("detail"))
        if not _SENTENCE.fullmatch(detail) or "Errno" in detail or "Error:" in detail:
            yield f"the error is no sentence: {detail}"
        if str(folder) in detail and not self._writer.paths_in_errors:
            yield f"the error names a path of the server: {detail.replace(str(folder), '…')}"

    def _check_rest(self, after: dict[str, Any]) -> Iterator[str]:
        if "raised" in after:
            yield f"what is left cannot be used: {after['raised']}"
            return
        self._report.states[after["state"]] += 1
        if after["state"] not in ("new", *self._writer.states):
            yield f"what is left is {after['state']}"
        if after["left"]:
            yield f"left for ever: {', '.join(sorted({_shape_path(path) for path in after['left']}))}"
        if after["again"]:
            yield f"the next write fails: {after['again']}"
        elif after["state_again"] != "new":
            yield f"after the next write there is {after['state_again']}"

    def _look_after(self, folder: Path) -> dict[str, Any]:
        writer = self._writer

        def look() -> dict[str, Any]:
            answer: dict[str, Any] = {}
            if writer.sweep is not None:
                writer.sweep(folder)
            elif not writer.user_folder:
                Storage(folder).sweep(writer.live, frozenset(writer.known), time.time() + 3600)
            if not writer.user_folder:
                answer["left"] = _list_temporary(folder)
            for name in _list_temporary(folder):
                os.utime(folder / name, (time.time() - _OLD_SECONDS,) * 2)
            answer["state"] = writer.look(folder)
            answer["again"] = writer.write(folder)
            answer["state_again"] = writer.look(folder)
            answer.setdefault("left", _list_temporary(folder))
            return answer

        found = tracer.run_alone(look)
        assert isinstance(found, dict)
        return found

    def _trace(self, folder: Path, **options: Any) -> tracer.Run:
        return tracer.run(lambda: self._writer.write(folder), folder, ignored=self._writer.ignored, **options)

    def _new_folder(self) -> Path:
        self._folders += 1
        folder = self._workplace / str(self._folders)
        shutil.copytree(self._template, folder, symlinks=True)
        return folder


def _list_temporary(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
    return [name for name in names if TEMPORARY.search(name)]


def _shape(call: Call) -> str:
    """The call without random parts of names."""
    return _shape_path(str(call))


def _shape_path(text: str) -> str:
    return re.sub(r"(?<=[.-])[a-z0-9_]{8}(?=\.tmp|$| )|[0-9a-f]{16,}|#\d+", "*", text)

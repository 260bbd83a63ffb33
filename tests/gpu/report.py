"""The report: tables of the runs and of the steps, and a JSON file with every wait, copy and note and its place."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.gpu.agreed import GOALS
from tests.gpu.pretended.record import Kind
from tests.gpu.runs import Outcome
from tests.gpu.steps import AFTER, BACKWARD, FORWARD, OPTIMIZER, VIEWS, Step

_PARTS = (VIEWS, FORWARD, BACKWARD, OPTIMIZER, AFTER)
_COUNTED = (Kind.WAIT, Kind.BLOCKING_COPY, Kind.OVERLAPPING_COPY)
_PLACED = (*_COUNTED, Kind.NOTE, Kind.FAULT)


def print_runs(outcomes: Iterable[Outcome], console: Console) -> None:
    table = Table("run", "", "seconds", "waits", "blocking copies", "overlapping copies", title="Runs")
    for outcome in outcomes:
        counts = (str(outcome.counts.count(kind)) for kind in _COUNTED)
        result = "[red]failed" if outcome.error else "ok"
        table.add_row(outcome.name, result, f"{outcome.seconds:.1f}", *counts)
    console.print(table)


def print_steps(steps: Iterable[Step], console: Console) -> None:
    title = "Operators of one plain step; in brackets the agreed number, and the goal"
    table = Table("step", *_PARTS, "sum", "waits", "blocking copies", "overlapping copies", title=title)
    for step in steps:
        operators = {part: step.operators(part) for part in _PARTS}
        views, optimizer, *others = (_beside(step, number) for number in range(len(step.cost)))
        parts = {part: str(count) for part, count in operators.items()} | {VIEWS: views, OPTIMIZER: optimizer}
        overlapping = str(step.counts.count(Kind.OVERLAPPING_COPY))
        table.add_row(step.name, *parts.values(), str(sum(operators.values())), *others, overlapping)
    console.print(table)


def _beside(step: Step, number: int) -> str:
    """A number beside the agreed one and the goal."""
    found, most = step.cost[number], step.agreed[number]
    goal = f", {GOALS[step.name][number]}" if step.name in GOALS else ""
    return f"{'[red]' if found > most else ''}{found} ({most}{goal})"


def print_errors(outcomes: Iterable[Outcome], steps: Iterable[Step], console: Console) -> None:
    for outcome in outcomes:
        if outcome.error:
            console.print(f"{outcome.name}: {outcome.error}", style="red", markup=False)
    for step in steps:
        for sentence in step.wrong:
            console.print(f"{step.name}: {sentence}", style="red", markup=False)


def write(outcomes: Sequence[Outcome], steps: Sequence[Step], path: Path) -> None:
    """Write the JSON file."""
    report = {"runs": [_run_json(outcome) for outcome in outcomes], "steps": [_step_json(step) for step in steps]}
    path.write_text(json.dumps(report, indent=1) + "\n")


def _run_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 1),
        "counts": {kind: outcome.counts.count(kind) for kind in Kind},
        "places": outcome.counts.to_json(*_PLACED),
    }


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "wrong": step.wrong,
        "agreed": step.agreed._asdict(),
        "cost": step.cost._asdict(),
        "operators": {part: step.operators(part) for part in _PARTS},
        "counts": {kind: step.counts.count(kind) for kind in Kind},
        "places": step.counts.to_json(*Kind),
    }

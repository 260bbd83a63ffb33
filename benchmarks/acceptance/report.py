"""Report of an acceptance run: a JSON file, written after each stage, and a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.acceptance.process import Outcome
from ssl_core.files import write_atomic


def write(outcomes: Sequence[Outcome], path: Path, about: dict[str, Any]) -> None:
    """Write all outcomes so far, in place of the file."""
    stages = [asdict(outcome) | {"failed": outcome.failed} for outcome in outcomes]
    write_atomic(path, json.dumps(about | {"stages": stages}, indent=1).encode())


def print_table(outcomes: Sequence[Outcome], title: str) -> None:
    table = Table("stage", "figure", "result", "goal", "state", "s", title=title)
    for outcome in outcomes:
        seconds = f"{outcome.seconds:.1f}"
        for figure in outcome.figures:
            table.add_row(outcome.stage, figure.name, figure.text, figure.goal, figure.state, seconds)
            seconds = ""
        if outcome.error is not None:
            table.add_row(outcome.stage, "", outcome.error, "", "failed", seconds)
        table.add_section()
    Console(width=150, markup=False).print(table)

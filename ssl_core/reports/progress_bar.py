"""The progress bar: a run's events in a terminal, and a table of its result."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ssl_core import events
from ssl_core.events import Event

_NOTE_METRICS = ("train/loss", "train/std", "online/knn", "online/linear")


class ProgressBar:
    """Renders events as they arrive."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console()
        self._latest: dict[str, float | None] = {}
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(title, total=None, note="")

    def show(self, stream: Iterator[Event]) -> Event | None:
        """Render all events and return the last one."""
        last: Event | None = None
        with self._bar:
            for last in stream:
                self._render(last)
        self._render_end(last)
        return last

    def _render(self, event: Event) -> None:
        if isinstance(event, events.Metrics):
            self._latest |= event.values
        elif isinstance(event, events.Progress):
            note = f"{event.images_per_second:,.0f} images/s {self._build_note()}"
            self._bar.update(self._task, completed=event.step, total=event.total_steps, note=note)
        elif isinstance(event, events.Log):
            colour = {"info": "cyan", "warning": "yellow", "error": "red"}[event.level]
            self._console.print(f"[{colour}]{event.level}[/] {event.message}", highlight=False)

    def _build_note(self) -> str:
        known = ((name, self._latest.get(name)) for name in _NOTE_METRICS)
        return " ".join(f"{name.split('/')[1]} {value:.3f}" for name, value in known if value is not None)

    def _render_end(self, last: Event | None) -> None:
        if isinstance(last, events.Result):
            self._console.print(_build_table(last.summary))
            if protocol := last.summary.get("protocol"):
                self._console.print(protocol, highlight=False)
        elif isinstance(last, events.Stopped):
            self._console.print(f"Stopped at step {last.step}; the same command resumes from there.", highlight=False)
        elif isinstance(last, events.Failed):
            self._console.print(f"[red]failed[/] {last.message}", highlight=False)


def _build_table(summary: dict[str, Any]) -> Table:
    """Return the rows of `results` if the summary has them, else its names and values."""
    rows = summary.get("results") or [{"": name, "value": value} for name, value in summary.items()]
    table = Table(title="Result")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="right" if name and name != "features" else "left")
    for row in rows:
        table.add_row(*(_format(row.get(name)) for name in names))
    return table


def _format(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return " to ".join(_format(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

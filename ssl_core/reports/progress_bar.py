"""The display: a run's events for somebody at a terminal, as a progress bar and a closing table."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ssl_core import events
from ssl_core.events import Event

_SHOWN = ("train/loss", "train/std", "online/knn", "online/linear")


class ProgressBar:
    """Shows events as they come."""

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
        """Show the events to the end and return the last of them."""
        last: Event | None = None
        with self._bar:
            for last in stream:
                self._show(last)
        self._close(last)
        return last

    def _show(self, event: Event) -> None:
        if isinstance(event, events.Metrics):
            self._latest |= event.values
        elif isinstance(event, events.Progress):
            note = f"{event.images_per_second:,.0f} images/s {self._note()}"
            self._bar.update(self._task, completed=event.step, total=event.total_steps, note=note)
        elif isinstance(event, events.Log):
            colour = {"info": "cyan", "warning": "yellow", "error": "red"}[event.level]
            self._console.print(f"[{colour}]{event.level}[/] {event.message}", highlight=False)

    def _note(self) -> str:
        known = ((name, self._latest.get(name)) for name in _SHOWN)
        return " ".join(f"{name.split('/')[1]} {value:.3f}" for name, value in known if value is not None)

    def _close(self, last: Event | None) -> None:
        if isinstance(last, events.Result):
            self._console.print(_table(last.summary))
            if protocol := last.summary.get("protocol"):
                self._console.print(protocol, highlight=False)
        elif isinstance(last, events.Stopped):
            self._console.print(f"Stopped at step {last.step}; the same command goes on from there.", highlight=False)
        elif isinstance(last, events.Failed):
            self._console.print(f"[red]failed[/] {last.message}", highlight=False)


def _table(summary: dict[str, Any]) -> Table:
    """The summary: its rows of results where it has them, else name and value."""
    rows = summary.get("results") or [{"": name, "value": value} for name, value in summary.items()]
    table = Table(title="Result")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="right" if name and name != "features" else "left")
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in names))
    return table


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return " to ".join(_text(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""Terminal output: tables, progress bars and errors for users, JSON for programs."""

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from twoviews.errors import ApiError
from twoviews.values import Job, JobStatus, Update

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
STYLES = {
    "ready": "green",
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
    JobStatus.RUNNING: "cyan",
    "validating": "cyan",
    JobStatus.CANCELLING: "yellow",
}
UNWRAPPED = frozenset(  # columns of ids and times
    {"id", "created", "expires", "last used", "at", "action", "target", "model", "alias", "since", "recipe"}
)
SHOWN_METRICS = {"train/loss": "loss", "online/knn": "kNN", "online/linear": "linear"}


def replace_unencodable() -> None:
    """Make stdout replace the characters that its encoding does not have, such as that of a pipe on Windows."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_json(value: Any) -> None:
    """Print a value as JSON: one line, or indented on a terminal."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")  # not on Windows, for a pipe
    print(json.dumps(value, indent=2 if out.is_terminal else None, ensure_ascii=not is_unicode), flush=True)  # noqa: T201


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows under their columns; statuses are coloured."""
    grid = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        is_unwrapped = column in UNWRAPPED
        grid.add_column(column, no_wrap=is_unwrapped, overflow="ellipsis" if is_unwrapped else "fold")
    for row in rows:
        grid.add_row(*(_format_cell(value) for value in row))
    out.print(grid if grid.row_count else f"[dim]{empty}[/]")


def print_fields(pairs: Mapping[str, object]) -> None:
    """Print names and values, one pair per line; empty values are left out."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        if value not in (None, "", {}, []):
            grid.add_row(name, _format_cell(value))
    out.print(grid)


def print_heading(title: str, note: str) -> None:
    """Print the title of a table, and below it a note."""
    out.print(f"\n[bold]{escape(title)}[/]")
    out.print(f"[dim]{escape(note)}[/]")


def print_line(text: str) -> None:
    """Print a line of plain text, which is not wrapped."""
    out.print(escape(text), soft_wrap=True)


def print_deleted(name: str, *, json: bool) -> None:
    """Print that what has this id or name is deleted."""
    if json:
        print_json({"id": name, "deleted": True})
    else:
        out.print(f"[green]✓[/] {escape(name)} is deleted.")


def print_warnings(warnings: Sequence[Mapping[str, Any]]) -> None:
    """Print the warnings of a dataset's report, one below the other, each with its number and its examples."""
    for warning in warnings:
        examples = ", ".join(map(str, warning["examples"]))
        more = f" ({warning['count']:,})" if warning["count"] > 1 else ""
        out.print(
            f"[yellow]![/] {escape(warning['detail'])}{more}" + (f" [dim]{escape(examples)}[/]" if examples else "")
        )


def print_code(title: str, code: str) -> None:
    """Print a title, and below it code that can be copied: its lines are neither indented nor wrapped."""
    out.print(f"\n[dim]{escape(title)}[/]")
    out.print(code.strip("\n"), markup=False, emoji=False, soft_wrap=True)


def print_error(error: Exception) -> None:
    """Print an error as one red sentence, and below it each fault with its pointer."""
    faults = error.errors if isinstance(error, ApiError) else []
    sentence = f"{error.filename}: {error.strerror}." if isinstance(error, OSError) and error.filename else str(error)
    is_repeated = any(fault.get("detail", "") in sentence for fault in faults)  # the sentence may quote the faults
    err.print(f"[bold red]✗[/] [red]{escape(sentence)}[/]")
    if not is_repeated:
        for fault in faults:
            err.print(f"  [yellow]{escape(fault.get('pointer', ''))}[/]  {escape(fault.get('detail', ''))}")


def format_number(value: object) -> str:
    """Return a number as text; floats have four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def format_size(size_bytes: int) -> str:
    """Return a size such as `12.3 MB`."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def command_name() -> str:
    """Return the words that call this command from the working directory."""
    if shutil.which("twoviews"):
        return "twoviews"
    called = os.path.relpath(sys.argv[0])
    return f"{os.path.relpath(sys.executable)} -m twoviews" if called.endswith("__main__.py") else called


@contextmanager
def transfer_bar(title: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar of bytes; yield the callback that updates it."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet) as bar:
        task = bar.add_task(escape(title), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def spinner(sentence: str, *, quiet: bool = False) -> Iterator[None]:
    """Show a spinner with the sentence while the block runs."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet) as bar:
        bar.add_task(escape(sentence), total=None)
        yield


class JobBars:
    """Progress bars of jobs."""

    def __init__(self, *, quiet: bool = False) -> None:
        columns = (
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("[cyan]{task.fields[state]}[/]"),
            TextColumn("[dim]{task.fields[numbers]}[/]"),
        )
        self._bars = Progress(*columns, console=err, disable=quiet)
        self._latest: dict[str, float] = {}

    def __enter__(self) -> "JobBars":
        self._bars.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._bars.stop()

    def follow(self, title: str, updates: Iterable[Update]) -> Job:
        """Show a job's updates until it has ended, and return it."""
        self._latest = {}
        task = self._bars.add_task(escape(title), total=None, state="", numbers="")
        job = None
        for update in updates:
            job = update.job
            self._show(task, update)
        assert job is not None
        return job

    def _show(self, task: TaskID, update: Update) -> None:
        for name, series in update.metrics.series.items():
            if name in SHOWN_METRICS and series.value and series.value[-1] is not None:
                self._latest[name] = series.value[-1]
        numbers = [f"{label} {self._latest[name]:.3f}" for name, label in SHOWN_METRICS.items() if name in self._latest]
        done, total = _count_steps(update.job)
        self._bars.update(
            task, completed=done, total=total, state=_describe_state(update.job), numbers=" · ".join(numbers)
        )


def _count_steps(job: Job) -> tuple[float | None, float | None]:
    """Return the steps done and in total; None while unknown."""
    if job.status == JobStatus.SUCCEEDED:
        return 1, 1
    if job.progress and job.progress.get("total_steps"):
        return job.progress["step"], job.progress["total_steps"]
    return None, None


def _describe_state(job: Job) -> str:
    if job.status != JobStatus.RUNNING or not job.progress or not job.progress.get("total_steps"):
        return job.status
    left = time.strftime("%H:%M:%S", time.gmtime(job.progress.get("eta_seconds") or 0)).removeprefix("00:")
    rate = job.progress.get("images_per_second") or 0
    return f"epoch {job.progress['epoch']}/{job.progress['epochs']} · {rate:,.0f} images/s · {left} left"


def _format_cell(value: object) -> str:
    text = escape(format_number(value))
    return f"[{STYLES[text]}]{text}[/]" if text in STYLES else text

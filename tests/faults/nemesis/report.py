"""The report of a run: a JSON file with every fault and every job, and a table of the faults by kind."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.nemesis.run import Report


def write(report: Report, folder: Path) -> Path:
    """Write `<database>-<seed>.json` in the folder, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.database}-{report.seed}.json"
    path.write_text(json.dumps(to_json(report), indent=1) + "\n")
    return path


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as plain values. Times are seconds since the start."""
    happened = sum(record.happened for record in report.faults)
    return {
        "database": report.database,
        "seed": report.seed,
        "seconds": round(report.seconds, 1),
        "faults_planned": len(report.faults),
        "faults_happened": happened,
        "jobs": len(report.jobs),
        "jobs_by_kind": dict(Counter(job.kind for job in report.jobs).most_common()),
        "jobs_by_status": dict(Counter(job.status for job in report.jobs).most_common()),
        "attempts": sum(job.attempts for job in report.jobs),
        "points": sum(job.points for job in report.jobs),
        "wrong": report.wrong,
        "every_fault": [{**asdict(record), "happened": record.happened} for record in report.faults],
        "every_job": [{**asdict(job), "verdict": "wrong" if job.wrong else "sound"} for job in report.jobs],
    }


def print_summary(report: Report, console: Console) -> None:
    title = f"{len(report.faults)} faults over {len(report.jobs)} jobs on {report.database}, seed {report.seed}"
    table = Table("fault", "planned", "happened", title=title, title_justify="left")
    planned = Counter(record.kind for record in report.faults)
    happened = Counter(record.kind for record in report.faults if record.happened)
    for kind in sorted(planned):
        table.add_row(kind, str(planned[kind]), str(happened[kind]))
    table.add_section()
    table.add_row("all", str(planned.total()), str(happened.total()))
    console.print(table)
    attempts = [job.attempts for job in report.jobs]
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(job.kind for job in report.jobs).most_common())
    console.print(f"Jobs: {kinds}")
    console.print(
        f"{sum(attempts)} attempts (at most {max(attempts)} at one job), {sum(job.points for job in report.jobs)} "
        f"metric points, {report.seconds:.0f} s"
    )
    for sentence in report.wrong:
        console.print(sentence, style="red", markup=False)
    summary = "errors were found" if report.wrong else "nothing was lost, nothing was doubled, every fault happened"
    console.print(summary, style="bold red" if report.wrong else "bold green")

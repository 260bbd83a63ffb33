"""`python -m tests.faults.nemesis`: faults over many jobs of every kind, a check of the history, and a report.

Exits with 1 when a planned fault did not happen, or a rule of `tests.faults.nemesis.checker` is broken. The seed
decides the plan of faults, the jobs and the times between faults; how processes interleave is decided by the machine.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.faults.nemesis import report
from tests.faults.nemesis.injector import Record
from tests.faults.nemesis.run import Report, fresh_database, run


def main() -> int:
    asked = _parse_arguments()
    console = Console()
    console.print(f"seed {asked.seed}")
    databases = ["sqlite", "postgresql"] if asked.database == "both" else [asked.database]
    is_wrong = False
    for kind in databases:
        done = _run(kind, asked)
        report.print_summary(done, console)
        console.print(f"The report: {report.write(done, asked.out)}")
        is_wrong = is_wrong or bool(done.wrong)
    return int(is_wrong)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.nemesis", description="Faults over many jobs.")
    parser.add_argument("--faults", type=int, default=500, help="on each database")
    parser.add_argument("--jobs", type=int, default=160, help="on each database, at least")
    parser.add_argument("--real", type=int, default=3, help="number of jobs that train a real network")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--gap", type=float, default=0.3, help="mean seconds between faults")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--encoder", action=argparse.BooleanOptionalAction, default=True, help="kill it too")
    parser.add_argument("--out", type=Path, default=Path("nemesis"), help="folder of the reports")
    parser.add_argument("--keep", type=Path, help="folder for the logs and the data, which are else removed")
    return parser.parse_args()


def _run(kind: str, asked: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory(prefix="twoviews-nemesis-") as name:
        folder = Path(name) if asked.keep is None else asked.keep / kind
        folder.mkdir(parents=True, exist_ok=True)
        with fresh_database(kind, folder) as (url, server):
            numbers = {"faults": asked.faults, "jobs": asked.jobs, "real": asked.real, "seed": asked.seed}
            options = {"gap": asked.gap, "server": server, "has_encoder": asked.encoder, "on_end": _print_progress}
            return run(folder, url, **numbers, **options)


def _print_progress(record: Record) -> None:
    """Write a line to stderr about a fault that is over."""
    times = [record.planned_at, record.injected_at, record.seen_at, record.healed_at]
    seconds = " ".join("-" if time is None else f"{time:.1f}" for time in times)
    line = f"{record.number} {record.kind} [{seconds}] {record.target}: {record.effect or 'no effect'}"
    sys.stderr.write(line[:240] + "\n")


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.faults.syscalls`: every fault at every system call of every writer, and a table of the results.

Exits with 1 when a case did not hold. `--cases N` draws N cases of each writer, by `--seed`; `--json` writes a report
a line instead of the table.
"""

import argparse
import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.syscalls.explore import Report, explore
from tests.faults.syscalls.ptrace import NotPermitted
from tests.faults.syscalls.writers import WRITERS


def main() -> int:
    options = _parse_options()
    gc.collect()
    gc.freeze()  # so that the children do not copy what was imported
    reports = []
    try:
        for report in _explore(options):
            reports.append(report)
            if options.json:
                print(json.dumps(vars(report)), flush=True)  # noqa: T201
            else:
                _show(report)
    except NotPermitted as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    if not options.json:
        _print_table(reports)
    return 1 if any(report.fell for report in reports) else 0


def _explore(options: argparse.Namespace) -> Iterator[Report]:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.writers or WRITERS:
            sample = None if options.cases is None else random.Random(f"{options.seed} {name}")
            started = time.monotonic()
            report = explore(WRITERS[name], Path(folder, name).resolve(), sample, options.cases or 0)
            report.seconds = time.monotonic() - started
            yield report


def _show(report: Report) -> None:
    print(f"{report.writer}: {report.cases} cases, {len(report.fell)} fell, {report.seconds:.0f} s", flush=True)  # noqa: T201
    for sentence in report.fell:
        print(f"  {sentence}", flush=True)  # noqa: T201


def _print_table(reports: list[Report]) -> None:
    table = Table("writer", "file", "calls", "cases", "killed", "failed", "left old", "absent", "new", "fell")
    for report in reports:
        killed = report.faults["kill"] + report.faults["torn"]
        states = (report.states[state] for state in ("old", "absent", "new"))
        numbers = (report.calls, report.cases, killed, report.cases - killed, *states, len(report.fell))
        table.add_row(report.writer, report.source, *map(str, numbers))
    Console(width=140).print(table)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.syscalls", description=__doc__.partition("\n")[0])
    parser.add_argument("writers", nargs="*", metavar="WRITER", help=f"of {', '.join(WRITERS)}; default: all")
    parser.add_argument("--cases", type=int, help="number of cases to draw for each writer; default: all")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--json", action="store_true", help="write one JSON object for each writer")
    parser.add_argument("--folder", type=Path, help="where the files are written; default: the temporary folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""The chaos harness: injects random faults while many jobs run, and prints a table of the results.

`python -m tests.faults.harness --faults 100 --jobs 30 --database sqlite` exits with 1 when a planned fault did not
happen, a job did not end exactly once with the results of a run without faults, or a process or file was left.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from service import keys
from service.db import migrate
from service.db.models import Job
from service.db.session import Database
from service.storage import Storage
from tests import servers
from tests.faults.experiment import ChaosExperiment
from tests.faults.fleet import Fleet
from tests.faults.injector import FaultInjector, plan_faults
from tests.faults.workload import Workload

END_SECONDS = 120.0


@dataclass
class Report:
    """The planned and injected faults, and the errors that were found."""

    planned: Counter[str]
    happened: Counter[str]
    attempts: list[int]
    points: int
    wrong: list[str]
    seconds: float


def run(folder: Path, database_url: str, *, faults: int, jobs: int, real: int, seed: int, gap: float = 1.4) -> Report:
    """Inject the faults into a fleet in `folder` while it runs the jobs, of which `real` run `ssl_core`.

    The mean time between faults is `gap` seconds. After the last, jobs are lost if no point comes in `END_SECONDS`.
    """
    rng = random.Random(seed)
    database = Database(database_url)
    fleet = Fleet(folder, database_url, max_fruitless_attempts="1000")
    try:
        with database.writing() as session:
            tenant = keys.get_or_create_tenant(session, "harness").id
        workload = Workload(database, Storage(fleet.settings.data_dir), tenant)
        if real:
            workload.prepare_real()  # before the clock starts, for it does the baseline run
        fleet.broker.start()
        started = time.monotonic()
        experiment = ChaosExperiment(fleet, workload, jobs, real=rng.sample(range(jobs), real))
        report = _run_experiment(FaultInjector(experiment, rng, gap), plan_faults(faults, rng))
        report.seconds = time.monotonic() - started
        return report
    finally:
        fleet.close()
        database.close()


def _run_experiment(injector: FaultInjector, kinds: list[str]) -> Report:
    experiment = injector.experiment
    injector.inject_all(kinds)
    until, seen = time.monotonic() + END_SECONDS, -1
    while (experiment.remaining_jobs or experiment.unfinished or injector.suspended) and time.monotonic() < until:
        if (points := experiment.points) != seen:
            until, seen = time.monotonic() + END_SECONDS, points
        experiment.keep_busy(1)
        injector.resume_due()
        time.sleep(0.1)
    wrong = [f"planned but never happened: {kind}" for kind in injector.missed]
    lost = experiment.unfinished
    wrong += [_describe_lost(experiment.workload.job(job)) for job in lost]
    wrong += [fault for job in experiment.submitted if job not in lost for fault in experiment.workload.faults(job)]
    wrong += _find_duplicates(experiment)
    wrong += [f"left behind: {command}" for command in experiment.stop()]
    rows = [experiment.workload.job(job) for job in experiment.submitted]
    return Report(
        Counter(kinds), Counter(injector.happened), [row.attempt for row in rows], experiment.points, wrong, 0.0
    )


def _describe_lost(job: Job) -> str:
    return f"{job.id} ({job.name}) is still {job.status}, attempt {job.attempt}: {job.status_detail}"


def _find_duplicates(experiment: ChaosExperiment) -> list[str]:
    """Return the requests that made more than one job, or none."""
    names = Counter(experiment.workload.names())
    wanted = {f"number {number}" for number in range(experiment.jobs)}
    return [f"{name} was accepted {names[name]} times" for name in sorted(wanted | set(names)) if names[name] != 1]


def print_report(report: Report, title: str, console: Console) -> None:
    table = Table("fault", "planned", "happened", title=title, title_justify="left")
    for kind, count in report.planned.most_common():
        table.add_row(
            f"kill -9: {kind}" if "suspended" not in kind else "SIGSTOP past the lease",
            str(count),
            str(report.happened[kind]),
        )
    table.add_section()
    table.add_row("all", str(report.planned.total()), str(report.happened.total()))
    console.print(table)
    attempts = report.attempts
    console.print(
        f"{len(attempts)} jobs in {sum(attempts)} attempts (at most {max(attempts)} for one), "
        f"{report.points} metric points, {report.seconds:.0f} s"
    )
    for sentence in report.wrong:
        console.print(sentence, style="red", markup=False)
    summary = "errors were found" if report.wrong else "every job ended once, with the results of a run without faults"
    console.print(summary, style="bold red" if report.wrong else "bold green")


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a migrated database of that kind."""
    if kind == "sqlite":
        url = f"sqlite:///{folder / 'twoviews.db'}"
        _migrate(url)
        yield url
        return
    with servers.postgresql() as url:
        _migrate(url)
        yield url


def _migrate(url: str) -> None:
    database = Database(url)
    migrate.upgrade(database)
    database.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.harness", description="Random faults over many jobs.")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--real", type=int, default=5, help="number of jobs that train a real network")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    console = Console()
    console.print(f"seed {asked.seed}")
    with tempfile.TemporaryDirectory(prefix="twoviews-faults-") as name:
        folder = Path(name)
        with fresh_database(asked.database, folder) as url:
            numbers = {"faults": asked.faults, "jobs": asked.jobs, "real": asked.real, "seed": asked.seed}
            report = run(folder, url, **numbers)
    print_report(
        report, f"{asked.faults} faults over {asked.jobs} jobs on {asked.database}, seed {asked.seed}", console
    )
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""A run of the nemesis: faults by a seeded plan while jobs of every kind run, then the check of the whole history."""

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service import garbage, keys
from service.db import migrate
from service.db.session import Database
from service.storage import Storage
from tests import servers
from tests.faults.fleet import Fleet
from tests.faults.nemesis import audit, checker, history
from tests.faults.nemesis.experiment import Experiment
from tests.faults.nemesis.history import Promise
from tests.faults.nemesis.injector import Injector, Record, plan_faults
from tests.faults.nemesis.requests import plan_kinds
from tests.faults.workload import Workload
from tests.processes import soon

END_SECONDS = 60.0  # without a new point or an ended job, after the last fault
LEFTOVER_SECONDS = "20"  # longer than an upload waits for its row while the database does not answer
MISSED = "planned, and did not happen: "


@dataclass(frozen=True)
class JobRecord:
    """A job, for the report; `wrong` is the checker's verdict."""

    id: str
    kind: str
    name: str | None
    status: str
    attempts: int
    points: int
    wrong: list[str]


@dataclass
class Report:
    """What was planned, what has happened, and what is wrong. Times are seconds since the start."""

    database: str
    seed: int
    faults: list[Record]
    jobs: list[JobRecord] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(
    folder: Path,
    database_url: str,
    *,
    faults: int,
    jobs: int,
    seed: int,
    real: int = 0,
    gap: float = 0.5,
    server: servers.PostgreSQL | None = None,
    has_encoder: bool = False,
    without: Collection[str] = (),
    on_end: Callable[[Record], object] = lambda record: None,
) -> Report:
    """Inject the faults into a fleet in `folder` while it runs the jobs, of which `real` train with `ssl_core`.

    server: that of `database_url`, if it is PostgreSQL, to be killed. gap: the mean number of seconds between faults,
    which may be more because of their preconditions. without: kinds that are left out. on_end is called after each
    fault. After the last, jobs are lost if nothing happens in `END_SECONDS`.
    """
    rng = random.Random(seed)
    kind = "sqlite" if server is None else "postgresql"
    database = Database(database_url)
    plan = plan_faults(faults, rng, [kind, "encoder"] if has_encoder else [kind], without)
    kinds = plan_kinds(jobs, rng)
    extra = {"max_fruitless_attempts": "1000", "leftover_seconds": LEFTOVER_SECONDS}
    extra |= {"lease_seconds": "2", "heartbeat_seconds": "0.4", "ring_seconds": "0.5", "reap_seconds": "0.7"}
    fleet = Fleet(folder, database_url, server, **extra)
    try:
        audit.install(database)
        with database.writing() as session:
            tenant = keys.get_or_create_tenant(session, "nemesis").id
        workload = Workload(database, Storage(fleet.settings.data_dir), tenant)
        if real:
            workload.prepare_real()  # before the clock starts, for it does the baseline run
        fleet.broker.start()
        trained = [number for number, kind in enumerate(kinds) if kind == "pretrain"]
        experiment = Experiment(fleet, workload, kinds, rng.sample(trained, real), has_encoder=has_encoder)
        injector = Injector(experiment, rng, gap, on_end)
        try:
            if has_encoder:
                soon(experiment.encoder_answers, 120)
            injector.inject_all(plan)
            _finish_jobs(injector)
            report = Report(kind, seed, injector.records, seconds=injector.elapsed())
            _check(report, injector)
            return report
        finally:
            injector.close()
            experiment.close()
    finally:
        fleet.close()
        database.close()


def _finish_jobs(injector: Injector) -> None:
    """Submit the jobs that are left, and wait for the ends of all."""
    experiment = injector.experiment
    experiment.reserved_jobs = 0
    until, seen = time.monotonic() + END_SECONDS, (-1, -1)
    experiment.look()
    while (experiment.remaining_jobs or experiment.unfinished) and time.monotonic() < until:
        injector.tick(1)
        state = (len(experiment.unfinished), experiment.workload.count_points())
        if state != seen:
            until, seen = time.monotonic() + END_SECONDS, state


def _check(report: Report, injector: Injector) -> None:
    """Stop the fleet, sweep, read the history and check it."""
    experiment, workload = injector.experiment, injector.experiment.workload
    left = experiment.stop()
    promises = [
        Promise(entry.request.name, entry.request.key, entry.request.kind, entry.id)
        for entry in experiment.acknowledged
    ]
    _sweep(workload)
    changes = audit.read(workload.database)
    asked = frozenset(experiment.cancelled), changes, frozenset(experiment.retried)
    seen = history.read(workload.database, workload.storage, promises, *asked)
    seen.processes = left
    found = checker.check(seen)
    report.jobs = [
        JobRecord(job.id, job.kind, job.name, job.status, job.attempt, job.last_point, found.get(job.id, []))
        for job in seen.jobs.values()
    ]
    report.wrong = [f"{MISSED}{fault}" for fault in injector.missed]
    report.wrong += experiment.unexpected + [sentence for sentences in found.values() for sentence in sentences]


def _sweep(workload: Workload) -> None:
    """Remove the files that no row names, as a keeper does, however young they are."""
    with workload.database.reading() as session:
        live, known = garbage.live_paths(session), garbage.known_folders(session)
    workload.storage.sweep(live, known, time.time() + 1)


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[tuple[str, servers.PostgreSQL | None]]:
    """Yield the URL of a migrated database of that kind, and its server if it has one."""
    if kind == "sqlite":
        url = f"sqlite:///{folder / 'twoviews.db'}"
        _migrate(url)
        yield url, None
        return
    with servers.postgresql_server() as server:
        _migrate(server.url)
        yield f"{server.url}&application_name=nemesis", server


def _migrate(url: str) -> None:
    database = Database(url)
    migrate.upgrade(database)
    database.close()

"""A sweep of real trainings, whose keeper and workers are killed -9: each trial is one job, and none is lost."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from service.db.models import Dataset, Job, Sweep
from service.db.session import Database
from service.db.statuses import TERMINAL
from service.storage import Storage
from service.sweeps import registry
from service.sweeps.space import apply
from ssl_core import config
from tests.faults.fleet import Fleet, kill, trainer_of
from tests.processes import soon
from tests.service import given
from tests.ssl_core.digits import TINY, pack_digits

TRAINER = json.dumps([sys.executable, "-m", "ssl_core", "run"])
PARALLEL = 2
BASE = {"method": {"name": "simclr"}, "epochs": 4, "evaluation": {"every_epochs": 1}, **TINY}


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with closing(Fleet(tmp_path, database_url, trainer_command=TRAINER)) as fleet:
        fleet.broker.start()
        yield fleet


@pytest.fixture
def dataset(fleet: Fleet, database: Database, tenant: str, tmp_path: Path) -> str:
    """A dataset of 72 digits, in the storage."""
    dataset = given.create_ready_dataset(database, tenant, images=72, classes=10)
    with database.reading() as session:
        path = str(session.scalars(select(Dataset.path)).one())
    shutil.copytree(pack_digits(tmp_path / "digits"), Storage(fleet.settings.data_dir).absolute(path))
    return dataset


def create_sweep(database: Database, tenant: str, dataset: str, base: dict, params: list[dict], **fields) -> Sweep:
    plan = {
        "kind": "pretrain",
        "config": base,
        "space": {},
        "search": {"search": "grid", "trials": len(params), "seed": 0},
        "trials": [(each, config.parse(apply(base, each), "pretrain")) for each in params],
        "parallel": PARALLEL,
        "metric": "online/knn",
        "goal": "maximize",
        "pruner": None,
    }
    with database.writing() as session:
        return registry.create(session, tenant, dataset, registry.Plan(**(plan | fields)))


def read(database: Database, sweep: Sweep) -> tuple[Sweep, registry.Summary, list]:
    with database.reading() as session:
        found = session.get_one(Sweep, sweep.id)
        return found, registry.summarize(session, [found])[found.id], registry.list_trials(session, found)[0]


def list_jobs(database: Database, sweep: Sweep) -> list[Job]:
    with database.reading() as session:
        return list(session.scalars(select(Job).where(Job.sweep_id == sweep.id).order_by(Job.id)))


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_every_trial_is_run_once_although_keepers_and_trainers_are_killed(
    fleet: Fleet, database: Database, tenant: str, dataset: str
) -> None:
    params = [{"/seed": seed, "/method/temperature": 0.1 * (seed + 1)} for seed in range(4)]
    sweep = create_sweep(database, tenant, dataset, BASE, params)
    keepers, workers = [fleet.keeper(), fleet.keeper()], [fleet.worker(), fleet.worker()]
    most = 0

    def has(count: int) -> bool:
        nonlocal most
        jobs = list_jobs(database, sweep)
        most = max(most, sum(job.status not in TERMINAL for job in jobs))
        return len(jobs) >= count

    for count in (1, 3):  # jobs that were submitted
        soon(lambda count=count: has(count) and any(map(trainer_of, workers)), 120)
        if trainer := next(filter(None, map(trainer_of, workers)), None):
            kill(trainer.pid)
        kill(keepers.pop(0).pid)
        keepers.append(fleet.keeper())
    soon(lambda: has(4) and read(database, sweep)[0].finished_at, 120)
    found, summary, trials = read(database, sweep)
    assert (found.status, summary.counts["succeeded"]) == ("succeeded", 4), fleet.logs()
    jobs = list_jobs(database, sweep)
    assert [job.id for job in jobs] == [trial.job_id for trial in trials]
    assert [job.config["seed"] for job in jobs] == [*range(4)]
    assert most <= PARALLEL
    assert sum(job.attempt for job in jobs) > 4, "the kills had no effect"
    assert all(trial.value is not None for trial in trials)
    assert summary.best.value == max(trial.value for trial in trials)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_trial_that_does_worse_is_stopped_early(fleet: Fleet, database: Database, tenant: str, dataset: str) -> None:
    """At a high temperature the loss stays near the logarithm of the number of other views."""
    base = BASE | {"evaluation": {"every_epochs": 0}}
    params = [
        {"/method/temperature": temperature, "/epochs": epochs} for temperature, epochs in ((0.1, 40), (10.0, 5000))
    ]
    pruner = {"name": "median", "startup_trials": 1, "warmup_epochs": 2, "interval_epochs": 1, "min_trials": 1}
    fields = {"parallel": 1, "metric": "train/loss", "goal": "minimize", "pruner": pruner}
    sweep = create_sweep(database, tenant, dataset, base, params, **fields)
    fleet.keeper(), fleet.worker()
    soon(lambda: read(database, sweep)[0].finished_at, 120)
    found, summary, trials = read(database, sweep)
    assert (found.status, summary.best.number) == ("succeeded", 0), fleet.logs()
    assert summary.counts["pruned"] == 1
    stopped = given.get_job(database, trials[1].job_id)
    assert stopped.status == "cancelled"
    assert stopped.progress["epoch"] < 5000

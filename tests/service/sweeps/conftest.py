"""Fixtures: sweeps over SimCLR's temperature, and workers that run their trials."""

from collections.abc import Callable

import pytest

from service.db.models import Sweep
from service.db.session import Database
from service.settings import Settings
from service.sweeps import progress, registry
from service.sweeps.space import apply
from ssl_core import config, events
from tests.service import given


@pytest.fixture
def dataset(database: Database, tenant: str) -> str:
    return given.create_ready_dataset(database, tenant)


@pytest.fixture
def create_sweep(database: Database, tenant: str, dataset: str) -> Callable[..., Sweep]:
    """Return a function that creates a sweep over these temperatures."""

    def create(*temperatures: float, **fields) -> Sweep:
        params = [{"/method/temperature": temperature} for temperature in temperatures]
        about = {name: fields.pop(name) for name in ("model", "name", "priority", "metadata") if name in fields}
        plan = {
            "kind": "pretrain",
            "config": given.PRETRAIN,
            "space": {"/method/temperature": {"values": [*temperatures]}},
            "search": {"search": "grid", "trials": len(params), "seed": 0},
            "trials": [(each, config.parse(apply(given.PRETRAIN, each), "pretrain")) for each in params],
            "parallel": 2,
            "metric": "online/knn",
            "goal": "maximize",
            "pruner": None,
        }
        with database.writing() as session:
            return registry.create(session, tenant, dataset, registry.Plan(**(plan | fields)), **about)

    return create


def prune_nothing(sweep, trials, fresh):
    for number, reports in fresh.items():
        trials[number].reports.extend(reports)
    return {}


@pytest.fixture
def advance(database: Database, settings: Settings) -> Callable[..., bool]:
    """Return a function that brings a sweep forward, as the keeper does."""

    def advance_once(sweep: Sweep, prune: progress.Prune = prune_nothing, **changes) -> bool:
        with database.writing() as session:
            return progress.advance(session, sweep.id, settings.model_copy(update=changes), prune)

    return advance_once


@pytest.fixture
def run_trial(database: Database) -> Callable[..., str]:
    """Return a function that runs the next queued job, which reports these values, one for each epoch; it returns the
    job's id."""

    def run(*values: float | None, ending: str = "succeeded") -> str:
        claim = given.claim_job(database)
        points = [
            events.Metrics(step=10 * epoch, epoch=float(epoch), time=1000.0 + epoch, values={"online/knn": value})
            for epoch, value in enumerate(values, 1)
        ]
        given.record_events(database, claim, *points)
        given.finish_job(database, claim, ending)
        return claim.job_id

    return run


@pytest.fixture
def look(database: Database, tenant: str) -> Callable[[Sweep], tuple[Sweep, registry.Summary, list]]:
    """Return a function that reads a sweep, its summary, and its trials with their states."""

    def read(sweep: Sweep):
        with database.reading() as session:
            found = registry.get(session, tenant, sweep.id)
            summary = registry.summarize(session, [found])[found.id]
            trials, has_more = registry.list_trials(session, found)
            assert not has_more
            return found, summary, [(registry.find_state(found, trial), trial) for trial in trials]

    return read

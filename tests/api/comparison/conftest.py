"""Fixtures: a dataset, and jobs that have run on it."""

import pytest

from ssl_core import events
from tests.service import given


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


@pytest.fixture
def run_job(client, database, dataset):
    """Return a function that submits a job, runs it with these events, and returns it as the API shows it."""

    def run(*batch, ending="succeeded", **fields):
        body = {"dataset": dataset, **({"config": given.PRETRAIN} if "kind" not in fields else {}), **fields}
        job = client.post("/jobs", json=body).json()
        claim = given.claim_job(database)
        given.record_events(database, claim, *batch)
        given.finish_job(database, claim, ending)
        return client.get(f"/jobs/{job['id']}").json()

    return run


@pytest.fixture
def make_model(run_job):
    """Return a function that makes a model of that method, and returns its id."""

    def make(method="simclr", epochs=100):
        card = {"method": method, "backbone": {"name": "resnet18"}, "config": {"epochs": epochs}}
        return run_job(given.model(**card), events.Result({}), name=method)["model_id"]

    return make

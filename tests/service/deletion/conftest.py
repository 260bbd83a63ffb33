"""Fixtures of the tests of deletion: a job that has made a model, and calls in a transaction of their own."""

import pytest
from sqlalchemy import func, select

from service.indexes import registry
from ssl_core import events
from tests.service import given

EMBEDDINGS = events.Artifact("embeddings.json", "embeddings.json", "application/json", given.SHA, 10)


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


@pytest.fixture
def write(database):
    """Return a function that calls another with a session, and commits."""

    def call(function, *arguments, **options):
        with database.writing() as session:
            return function(session, *arguments, **options)

    return call


@pytest.fixture
def count(database):
    """Return a function that counts the rows of a table."""

    def count_rows(table, *conditions):
        with database.reading() as session:
            return session.scalar(select(func.count()).select_from(table).where(*conditions))

    return count_rows


@pytest.fixture
def index(write, tenant):
    """Return a function that begins an index of the embeddings that a job has left, and returns its row."""
    return lambda job: write(registry.create, tenant, job.id)


@pytest.fixture
def run_job(database, tenant, dataset):
    """Return a function that runs a job of 20 points to its end, with a checkpoint, an artifact and a model."""

    def run(ending="succeeded", *more, **fields):
        job = given.submit_job(database, tenant, dataset, **fields)
        claim = given.claim_job(database)
        artifact = events.Artifact("loss.png", "loss.png", "image/png", given.SHA, 10)
        batch = [given.metrics(step) for step in range(1, 21)]
        given.record_events(database, claim, *batch, given.checkpoint(10), artifact, given.model(), *more)
        given.finish_job(database, claim, ending)
        return given.get_job(database, job.id)

    return run

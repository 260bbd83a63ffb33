"""Fixtures: a running job, and a live server whose streams are kept alive by frequent comments."""

import pytest

from tests.api.live import serving
from tests.service import given


@pytest.fixture
def job(database, tenant):
    return given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id


@pytest.fixture
def claim(database, job):
    return given.claim_job(database)


@pytest.fixture
def make_server(settings, key):
    """Returns a context of a server with the settings."""
    return lambda **changed: serving(settings.model_copy(update=changed), key)


@pytest.fixture
def server(make_server):
    with make_server(stream_keep_alive_seconds=0.2) as server:
        yield server

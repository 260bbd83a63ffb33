"""Fixtures: indexes that are submitted and built."""

from collections.abc import Callable

import pytest

from service.db.models import VectorIndex
from service.db.session import Database
from service.indexes import registry
from service.settings import Settings
from service.storage import Storage
from tests.service import given
from tests.worker.indexes import embedded
from worker.trainer.supervisor import supervise


@pytest.fixture
def submit(database: Database, storage: Storage, tenant: str) -> Callable[..., VectorIndex]:
    """Submit an index of these images' vectors."""

    def submit_index(images: embedded.Images, **about) -> VectorIndex:
        job = embedded.add_job(database, storage, tenant, images, **about)
        with database.writing() as session:
            return registry.create(session, tenant, job)

    return submit_index


@pytest.fixture
def attempt(database: Database, storage: Storage) -> Callable[..., None]:
    """Claim a build, unless a claim is given, and run the attempt with a real process."""

    def run(claim=None, **settings) -> None:
        claim = claim or given.claim_job(database, "data")
        supervise(claim, database, storage, Settings(data_dir=storage.root, **settings), lambda: False)

    return run


@pytest.fixture
def show(database: Database, tenant: str) -> Callable[[str], VectorIndex]:
    """Return the current row of an index."""

    def get(index_id: str) -> VectorIndex:
        with database.reading() as session:
            return registry.get(session, tenant, index_id)

    return get

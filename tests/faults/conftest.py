"""Fixtures of the fault tests: a fleet of processes, and a workload."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.db.session import Database
from service.storage import Storage
from tests.faults.fleet import Fleet
from tests.faults.workload import Workload


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet with a running broker; the test starts the other processes."""
    with closing(Fleet(tmp_path, database_url)) as fleet:
        fleet.broker.start()
        yield fleet


@pytest.fixture
def workload(fleet: Fleet, database: Database, tenant: str) -> Workload:
    return Workload(database, Storage(fleet.settings.data_dir), tenant)

"""Fixtures of the fault tests: a fleet of real processes, and a workload for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.session import Database
from service.storage import Storage
from tests.faults.fleet import Fleet
from tests.faults.workload import Workload


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """A running broker, and whatever the test starts beside it."""
    fleet = Fleet(tmp_path, database_url)
    fleet.broker.start()
    yield fleet
    fleet.close()


@pytest.fixture
def workload(fleet: Fleet, database: Database, tenant: str) -> Workload:
    return Workload(database, Storage(fleet.settings.data_dir), tenant)

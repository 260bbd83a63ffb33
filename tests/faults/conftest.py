"""Fixtures of the fault tests: a fleet of real processes, a workload for it, and chance."""

import random
import secrets
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
    """A running broker, and whatever the test starts beside it."""
    with closing(Fleet(tmp_path, database_url)) as fleet:
        fleet.broker.start()
        yield fleet


@pytest.fixture
def workload(fleet: Fleet, database: Database, tenant: str) -> Workload:
    return Workload(database, Storage(fleet.settings.data_dir), tenant)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Chance. Its seed stands in the report of a test that fails, and `--seed` gives it again."""
    asked = request.config.getoption("--seed")
    seed = secrets.randbelow(10**6) if asked is None else asked
    request.node.add_report_section("setup", "chance", f"--seed {seed}")
    return random.Random(seed)

"""Fixtures: databases, a broker, settings, tenants and a random generator, all our own, made when first asked for."""

# ruff: noqa: E402 — the environment is resolved before anything could read it

import gc
import os

for _name in [name for name in os.environ if name.startswith("TWOVIEWS_")]:
    del os.environ[_name]  # somebody's real service may be meant, and its data
os.environ["TWOVIEWS_RETRY_SECONDS"] = "0"  # what was in an attempt's way goes by the test's own hand
os.environ["OMP_NUM_THREADS"] = "1"  # whatever is exported: weights are compared byte by byte, between processes too

import random
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from service import keys
from service.db import ids, migrate
from service.db.session import Database
from service.settings import Settings
from service.storage import Storage
from tests import servers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", type=int, help="of the random moments at which faults happen; a failed test shows its own"
    )


# The longest files of tests, the longest first.
LONG = (
    "faults/test_nemesis.py",
    "test_end_to_end.py",
    "faults/test_kills.py",
    "demo/test_run.py",
    "export/test_formats.py",
    "ssl_core/test_main.py",
    "training/test_several_devices.py",
    "test_docs_commands.py",
    "test_recipes.py",
    "faults/test_stops.py",
    "uploads/test_import_weights.py",
    "training/test_resume.py",
    "encoder/test_server.py",
    "test_upgrade.py",
    "api/test_live.py",
    "gpu/test_pretended_gpu.py",
    "test_docker.py",
    "api/test_bad_datasets.py",
    "encoder/test_server_faults.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the items so that long files come first: one that comes last leaves the other workers idle."""

    def position(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((place for place, name in enumerate(LONG) if path.endswith(name)), len(LONG))

    items.sort(key=position)


def pytest_collection_finish() -> None:
    """Exclude what the collection imported from garbage collection, which takes a fifth of the time of training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server's `postgres` database."""
    with servers.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "twoviews.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def _postgresql_template(postgresql_server: str) -> str:
    """The URL of a server that has a migrated database called `template_twoviews`."""
    _execute(postgresql_server, "CREATE DATABASE template_twoviews")
    database = Database(_named(postgresql_server, "template_twoviews"))
    migrate.upgrade(database)
    database.close()
    return postgresql_server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh database with the newest schema; every test that asks for it runs on both."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("_sqlite_template"), tmp_path / "twoviews.db")
        yield f"sqlite:///{tmp_path / 'twoviews.db'}"
        return
    with _created(request.getfixturevalue("_postgresql_template"), "template_twoviews") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an SQLite file that does not exist, and of a PostgreSQL database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'elsewhere' / 'twoviews.db'}"
        return
    with _created(request.getfixturevalue("postgresql_server")) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, fresh database with the newest schema, on each kind in turn."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def broker_url(_broker: str) -> str:
    """The URL of an empty broker."""
    with servers.broker_client(_broker) as client:
        client.flushall()
    return _broker


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    """Settings that name the test's own database, broker and data folder."""
    data = tmp_path / "data"
    data.mkdir()
    return Settings(data_dir=data, database_url=database_url, broker_url=broker_url)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """The storage under the data folder that `settings` names."""
    return Storage(tmp_path / "data")


@pytest.fixture
def tenant(database: Database) -> str:
    """The id of a tenant."""
    with database.writing() as session:
        return keys.get_or_create_tenant(session, "acme").id


@pytest.fixture
def stranger(database: Database) -> str:
    """The id of another tenant, who may see nothing of the first one's."""
    with database.writing() as session:
        return keys.get_or_create_tenant(session, "stranger").id


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A random generator. The report of a failed test has its seed, for `--seed`."""
    asked = request.config.getoption("--seed")
    seed = secrets.randbelow(10**6) if asked is None else asked
    request.node.add_report_section("setup", "seed", f"--seed {seed}")
    return random.Random(seed)


@contextmanager
def _created(server: str, template: str = "template0") -> Iterator[str]:
    name = ids.new("ten")
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _named(server, name)
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _named(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()

"""Fixtures: the command on a wide terminal, against a real API without workers, and that API's database."""

import pytest
from typer.testing import CliRunner

from service import keys
from service.db.session import Database
from service.settings import Settings
from tests.service import given
from twoviews import terminal
from twoviews.cli.main import app


@pytest.fixture
def run(credentials, monkeypatch):
    """Return a function that runs the command with these words."""
    monkeypatch.setattr(terminal.out, "_width", 200)  # Rich reads COLUMNS when the module is imported
    connection = ["--url", credentials.url, "--key", credentials.key]
    return lambda *words: CliRunner().invoke(app, [*connection, *words], catch_exceptions=False)


@pytest.fixture
def settings(tmp_path):
    """The settings of the API."""
    return Settings(data_dir=tmp_path, database_url="")


@pytest.fixture
def database(settings, credentials):
    """The database of the API."""
    database = Database(settings.database)
    yield database
    database.close()


@pytest.fixture
def dataset(database):
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "acme").id
    return given.create_ready_dataset(database, tenant)


@pytest.fixture
def run_scripted(script):
    """Return a function that runs the command with these words, against a scripted server."""
    connection = ["--url", script.url, "--key", "tv_secret"]
    return lambda *words: CliRunner().invoke(app, [*connection, *words], catch_exceptions=False)

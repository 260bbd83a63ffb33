"""Fixtures: a real API on loopback with its own database and key, and a scripted server."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from api import app
from service import keys
from service.db.session import Database
from service.settings import Settings
from tests.twoviews import scripted
from twoviews import Client
from twoviews.credentials import Credentials
from twoviews.transport import Transport


@pytest.fixture
def script() -> Iterator[scripted.Script]:
    with scripted.server() as script:
        yield script


@pytest.fixture
def transport(script: scripted.Script) -> Iterator[Transport]:
    """A transport to the scripted server with short pauses between retries."""
    transport = Transport(Credentials(script.url, "tv_secret"), retries=3, pause_seconds=0.001)
    yield transport
    transport.close()


@pytest.fixture
def credentials(_sqlite_template: Path, broker_url: str, tmp_path: Path) -> Iterator[Credentials]:
    """The URL of a real API, and a key of it."""
    shutil.copy(_sqlite_template, tmp_path / "twoviews.db")
    settings = Settings(data_dir=tmp_path, database_url="", broker_url=broker_url)
    database = Database(settings.database)
    with database.writing() as session:
        _, secret = keys.create(session, keys.get_or_create_tenant(session, "acme").id, "test")
    database.close()
    server = uvicorn.Server(uvicorn.Config(app.create(settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    yield Credentials(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", secret)
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(credentials: Credentials) -> Iterator[Client]:
    """A client of a real API without workers."""
    with Client(credentials.url, credentials.key) as client:
        yield client

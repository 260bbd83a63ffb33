"""Fixtures: an encoder process, and clients of an application in its data folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from api.app import create
from service import keys
from service.db.session import Database
from service.settings import Settings
from tests.api.conftest import TestClient
from tests.api.images import packed
from tests.worker.encoder import models, server
from tests.worker.encoder.server import Server


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with packed datasets, and a model."""
    folder = server.data_folder(tmp_path_factory.mktemp("data"))
    packed.pack_all(folder / "datasets")
    models.make(folder / "models" / "a")
    return folder


@pytest.fixture(scope="module")
def encoder(image_folder: Path) -> Iterator[Server]:
    with server.running(Settings(data_dir=image_folder)) as running:
        yield running


@pytest.fixture
def app(settings: Settings, image_folder: Path, encoder: Server) -> FastAPI:
    return create(settings.model_copy(update={"data_dir": image_folder}))


@pytest.fixture
def client(anonymous: TestClient, key: str) -> TestClient:
    """A client with the tenant's key, whose requests share one event loop, as the connections to the encoder do."""
    anonymous.headers["Authorization"] = f"Bearer {key}"
    return anonymous


@pytest.fixture
def as_other(database: Database, stranger: str) -> dict[str, str]:
    """Headers with another tenant's key."""
    with database.writing() as session:
        return {"Authorization": f"Bearer {keys.create(session, stranger, 'other')[1]}"}


@pytest.fixture
def add(database, tenant, image_folder: Path) -> Callable[..., str]:
    """Insert a ready dataset of the tenant by the name of its folder, and return its id."""
    return lambda name, **fields: packed.add(database, tenant, image_folder / "datasets", name, **fields)

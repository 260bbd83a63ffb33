"""Fixtures: an encoder process, indexes that it searches, and clients of an application in its data folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI

from api.app import create
from service import keys, leases
from service.db.session import Database
from service.indexes import registry
from service.settings import Settings
from service.storage import Storage
from ssl_core.data.dataset import Dataset
from ssl_core.data.split_names import SPLITS
from ssl_core.events import Result
from ssl_core.serialization import saved_model
from tests.api.conftest import TestClient
from tests.api.images import packed
from tests.api.test_embed import create_model
from tests.service import given
from tests.worker.encoder import models, server
from tests.worker.encoder.server import Server, features
from tests.worker.indexes import embedded
from worker.indexes.build import Options, build
from worker.indexes.embeddings import Embeddings, StoredFile

EXACT = Options(exact_rows=10**6, exact_graph_rows=10**6, memory_bytes=2**30)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with packed datasets, and a model."""
    folder = server.data_folder(tmp_path_factory.mktemp("data"))
    packed.pack_all(folder / "datasets")
    models.make(folder / "models" / "a")
    return folder


@pytest.fixture(scope="module")
def encoder(data_folder: Path) -> Iterator[Server]:
    with server.running(Settings(data_dir=data_folder, search_products=10**6)) as running:
        yield running


@pytest.fixture
def app(settings: Settings, data_folder: Path, encoder: Server) -> FastAPI:
    return create(settings.model_copy(update={"data_dir": data_folder}))


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
def add_index(database: Database, tenant: str, data_folder: Path) -> Callable[..., str]:
    """Build an index of these images in this process, as a worker does in another, and return its id."""

    def add(images: embedded.Images, options: Options = EXACT, **about) -> str:
        storage = Storage(data_folder)
        job = embedded.add_job(database, storage, tenant, images, **about)
        with database.writing() as session:
            index = registry.create(session, tenant, job).id
        claim = given.claim_job(database, "data")
        files = {file.name: StoredFile(storage.absolute(file.path), file.sha256) for file in claim.embeddings}
        built = build(Embeddings(files, None), storage.index_dir(index, claim.attempt), options)
        with database.writing() as session:
            run = (claim.job_id, claim.attempt)
            result = Result(built["report"] | {"layer": built["layer"]})
            leases.record_events(session, *run, 60, [result], f"indexes/{index}/a1")
            leases.finish(session, *run, "succeeded")
        return index

    return add


@pytest.fixture
def photos(add_index, database, tenant, data_folder: Path, encoder: Server) -> tuple[str, Dataset]:
    """An index of the dataset `small`, by the features that the encoder computes of its images; and the dataset."""
    dataset = Dataset.open(data_folder / "datasets" / "small")
    files = [dataset.read_file(row) for row in range(len(dataset))]
    vectors = np.concatenate([features(encoder.encode([file])) for file in files])
    described = [dataset.describe(row) for row in range(len(dataset))]
    images = embedded.Images(
        vectors,
        [None if image["label"] is None else dataset.class_names[image["label"]] for image in described],
        [SPLITS[image["split"]] for image in described],
        [image["name"] for image in described],
    )
    dataset_id = packed.add(database, tenant, data_folder / "datasets", "small")
    model = create_model(database, tenant, saved_model.load_card(data_folder / "models" / "a"))
    return add_index(images, dataset=dataset_id, model=model), dataset

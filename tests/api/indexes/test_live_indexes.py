"""Indexes end to end: API, encoder and the process that builds are real; the client and the command use them."""

import json
import threading
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from service import keys
from service.settings import Settings
from service.storage import Storage
from ssl_core.data.dataset import Dataset
from ssl_core.serialization import saved_model
from tests.api.images import packed
from tests.api.live import Live, serving
from tests.api.test_embed import create_model
from tests.service import given
from tests.worker.encoder import pictures, server
from tests.worker.encoder.server import Server
from tests.worker.indexes import embedded
from twoviews import Client
from twoviews.cli.main import app as command
from worker.trainer.supervisor import supervise

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def live(settings: Settings, data_folder, database, tenant) -> Iterator[tuple[Live, Server]]:
    found = settings.model_copy(update={"data_dir": data_folder})
    found.model_fields_set.add("data_dir")
    with database.writing() as session:
        secret = keys.create(session, tenant, "test")[1]
    with server.running(found) as encoder, serving(found, secret) as api:
        yield api, encoder


def test_an_index_is_built_searched_and_embedding_goes_on_beside_it(live, database, tenant, data_folder, tmp_path):
    api, encoder = live
    small = Dataset.open(data_folder / "datasets" / "small")
    files = [small.read_file(row) for row in range(len(small))]
    dataset = packed.add(database, tenant, data_folder / "datasets", "small")
    model = create_model(database, tenant, saved_model.load_card(data_folder / "models" / "a"))
    storage = Storage(data_folder)
    with Client(api.url, api.key) as client:
        vectors = embedded.np.array(client.embed(model, files))
        images = embedded.Images(vectors, ["a", None] * 10, ["train"] * 20, [f"{row}.png" for row in range(20)])
        job = embedded.add_job(database, storage, tenant, images, dataset=dataset, model=model)
        index = client.indexes.create(job, name="small")
        assert index.status == "building"
        claim = given.claim_job(database, "data")
        supervise(claim, database, storage, Settings(data_dir=data_folder), lambda: False)
        index = client.indexes.wait(index, timeout_seconds=60)
        assert (index.report["vectors"], index.name) == (20, "small")
        (tmp_path / "query.png").write_bytes(files[11])
        found = client.indexes.search(index, image=tmp_path / "query.png", k=4)
        assert (found[0]["row"], len(found)) == (11, 4)
        assert client.indexes.search(index, row=11, k=1)[0]["row"] == found[1]["row"]
        assert client.indexes.search(index, vector=vectors[3], k=1, label=None)[0]["row"] == 3
        assert [image["row"] for image in client.indexes.labels(index, limit=3)] == [*range(1, 20, 2)]
        assert len(client.indexes.select(index, 5, unlabelled=True)) == 5
        assert len(client.indexes.outliers(index, limit=3)) == 3
        assert isinstance(client.indexes.duplicates(index), tuple)

        def run(*words: str) -> str:
            connection = ["--url", api.url, "--key", api.key]
            return CliRunner().invoke(command, [*connection, *words], catch_exceptions=False).stdout

        assert json.loads(run("search", index.id, str(tmp_path / "query.png"), "-k", "4", "--json")) == list(found)
        assert "11.png" in run("search", index.id, "--row", str(found[1]["row"]))

        asking = threading.Event()

        def ask() -> None:
            while not asking.is_set():
                client.indexes.search(index, row=1)
                client.indexes.select(index, 20)

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        started = time.monotonic()
        assert len(client.embed(model, [pictures.png(number) for number in range(20)])) == 20
        asking.set()
        for asker in askers:
            asker.join()
        assert time.monotonic() - started < 30
        assert encoder.health()["searches"] > 10
        assert f"indexes/{index.id}/a1" in encoder.health()["indexes"]
        client.indexes.delete(index)
        assert list(client.indexes.list()) == []

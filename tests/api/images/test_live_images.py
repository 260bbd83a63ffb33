"""Images with API and encoder as processes: the client, the command, many thumbnails at a time, and no encoder."""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from service import keys
from service.settings import Settings
from ssl_core.serialization import saved_model
from tests.api.images.packed import PHOTOS
from tests.api.live import Live, serving
from tests.api.responses import check_problem
from tests.api.test_embed import create_model
from tests.worker.encoder import pictures, server
from tests.worker.encoder.server import Server
from twoviews import Client
from twoviews.cli.main import app as command

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def live(settings: Settings, image_folder: Path, database, tenant) -> Iterator[tuple[Live, Server]]:
    found = settings.model_copy(update={"data_dir": image_folder})
    found.model_fields_set.add("data_dir")
    with database.writing() as session:
        secret = keys.create(session, tenant, "test")[1]
    with server.running(found) as encoder, serving(found, secret) as api:
        yield api, encoder


def test_the_client_and_the_command_list_images_and_save_thumbnails(live, add, tmp_path) -> None:
    api, _ = live
    photos = add("photos")
    with Client(api.url, api.key) as client:
        assert {image["name"] for image in client.datasets.images(photos)} == PHOTOS.keys()
        chosen = list(client.datasets.images(photos, split="val", label="cat", sample=4, seed=3))
        assert chosen == list(client.datasets.images(photos, "val", "cat", 4, 3))
        assert {(image["split"], image["label"]) for image in chosen} == {("val", "cat")}
        thumbnail = client.datasets.thumbnail(photos, 0, size=64)
        assert Image.open(io.BytesIO(thumbnail)).size == (64, 36)

    def run(*words: str) -> str:
        connection = ["--url", api.url, "--key", api.key, "datasets", "images", photos]
        return CliRunner().invoke(command, [*connection, *words], catch_exceptions=False).stdout

    table = run("--class", "dog", "--split", "test")
    assert "test/dog/0.png" in table
    assert "20×10" in table
    assert "cat" not in table
    assert "No such images" in run("--class", "cat", "--split", "test")
    drawn = json.loads(run("--sample", "3", "--seed", "5", "--out", str(tmp_path / "out"), "--size", "16", "--json"))
    files = {path.name: Image.open(io.BytesIO(path.read_bytes())).size for path in (tmp_path / "out").iterdir()}
    assert files.keys() == {f"{image['row']}.jpg" for image in drawn}
    assert len(files) == 3
    assert {max(size) for size in files.values()} == {16}


def test_images_are_embedded_while_a_hundred_thumbnails_are_drawn(
    live, add, database, tenant, image_folder: Path
) -> None:
    api, encoder = live
    many = add("broken")  # large images, two of which are sound
    model = create_model(database, tenant, saved_model.load_card(image_folder / "models" / "a"))

    def draw(number: int) -> int:
        return api.client.get(f"/datasets/{many}/images/{number % 2 * 2}", params={"size": 16 + number}).status_code

    def embed(number: int) -> np.ndarray:
        answer = api.client.post("/embed", data={"model": model}, files={"images": pictures.png(number)})
        assert answer.status_code == 200, answer.text
        return np.array(answer.json()["data"][0]["embedding"])

    alone = [embed(number) for number in range(4)]
    with ThreadPoolExecutor(104) as clients:
        drawing = [clients.submit(draw, number) for number in range(100)]
        embedded = list(clients.map(embed, range(4)))
        assert {done.result() for done in drawing} == {200}
    np.testing.assert_allclose(embedded, alone, rtol=1e-4, atol=1e-5)
    health = encoder.health()
    assert health["thumbnails"] == 100
    assert 0 < health["thumbnail_bytes"] <= encoder.settings.thumbnail_cache_bytes


def test_without_an_encoder_the_response_is_503_until_it_is_back(live, add) -> None:
    api, encoder = live
    photos = add("photos")
    paths = [f"/datasets/{photos}/images", f"/datasets/{photos}/images/0"]
    assert [api.client.get(path).status_code for path in paths] == [200, 200]
    encoder.stop()
    for path in paths:
        answer = api.client.get(path)
        check_problem(answer, 503, "encoder_away")
        assert int(answer.headers["retry-after"]) > 0
    check_problem(api.client.get(paths[0], params={"class": "none"}), 422, "invalid_request")
    encoder.restart()
    assert [api.client.get(path).status_code for path in paths] == [200, 200]

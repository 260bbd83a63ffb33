"""POST /embed with an alias: on every process of the API it stands for the model to which it was moved last."""

import base64

import pytest

from api.app import create
from service import keys
from tests.api.conftest import TestClient
from tests.api.test_embed import create_model
from tests.worker.encoder import models, pictures, server

IMAGE = base64.b64encode(pictures.png(1)).decode()


def embed(client, model):
    answer = client.post("/embed", json={"model": model, "images": [IMAGE]})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_process_embeds_with_the_model_to_which_the_alias_was_moved(settings, database, tenant, tmp_path_factory):
    folder = server.data_folder(tmp_path_factory.mktemp("data"))
    cards = [models.make(folder / "models" / name, seed=seed) for seed, name in enumerate("ab")]
    made = [create_model(database, tenant, card, path=f"models/{name}") for card, name in zip(cards, "ab", strict=True)]
    settings = settings.model_copy(update={"data_dir": folder})
    with database.writing() as session:
        headers = {"Authorization": f"Bearer {keys.create(session, tenant, 'test')[1]}"}
    with (
        server.running(settings),
        TestClient(create(settings), headers=headers) as first,
        TestClient(create(settings), headers=headers) as second,
    ):
        wanted = [embed(first, model) for model in made]
        assert wanted[0]["data"] != wanted[1]["data"]
        for place in (0, 1, 0):
            first.put("/aliases/prod", json={"model": made[place]})
            assert embed(second, "prod") == embed(first, "prod") == wanted[place]

"""POST /embed with API and encoder as processes: disconnecting and concurrent clients."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service import keys
from service.settings import Settings
from ssl_core.serialization import saved_model
from tests.api.live import serving
from tests.api.test_embed import create_model
from tests.worker.encoder import models, pictures, server

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def live_embed(settings: Settings, database, tenant):
    """Settings, and a valid request."""
    models.make(settings.data_dir / "models" / "a")
    model = create_model(database, tenant, saved_model.load_card(settings.data_dir / "models" / "a"))
    with database.writing() as session:
        secret = keys.create(session, tenant, "test")[1]
    return settings, secret, {"data": {"model": model}, "files": {"images": pictures.png(0)}}


def test_work_of_a_disconnected_client_is_cancelled(live_embed) -> None:
    settings, secret, request = live_embed
    slow = settings.model_copy(update={"embed_wait_ms": 20_000})
    with server.running(slow) as encoder, serving(settings, secret) as api:

        def disconnect() -> None:
            with pytest.raises(httpx.ReadTimeout):
                api.client.post("/embed", timeout=httpx.Timeout(20, read=1), **request)

        leaver = threading.Thread(target=disconnect)
        leaver.start()
        encoder.until(waiting=1)
        leaver.join()
        encoder.until(waiting=0)
        assert encoder.health()["images"] == 0


def test_concurrent_clients_share_batches(live_embed) -> None:
    settings, secret, request = live_embed
    with server.running(settings) as encoder, serving(settings, secret) as api, ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda _: api.client.post("/embed", **request), range(80)))
        assert {answer.status_code for answer in answers} == {200}
        assert all(len(answer.json()["data"][0]["embedding"]) == 128 for answer in answers)
        health = encoder.health()
        assert health["images"] == 80
        assert health["batches"] < 80

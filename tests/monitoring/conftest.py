"""Scrapes of a live API and encoder: at rest, in trouble, and with encoder and data folder away."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text, update

from service import keys, workers
from service.db.models import Job, Worker
from service.db.session import Database, clock
from service.monitoring import last_runs
from service.settings import Settings
from tests.api.live import Live, serving
from tests.api.test_embed import create_model
from tests.monitoring.promql import Scrape
from tests.service import given
from tests.worker.encoder import pictures, server

PLACES = 4


@dataclass(frozen=True)
class Scrapes:
    rest: Scrape
    trouble: Scrape
    away: Scrape


@pytest.fixture(scope="package")
def scrapes(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Scrapes:
    folder = server.data_folder(tmp_path_factory.mktemp("scrape"))
    (folder / "data").mkdir()
    shutil.copy(_sqlite_template, folder / "twoviews.db")
    settings = Settings(
        data_dir=folder / "data", database_url=f"sqlite:///{folder / 'twoviews.db'}", embed_queue_images=PLACES
    )
    database = Database(settings.database)
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "acme").id
        _, operator = keys.create(session, tenant, "operator", "operator")
    dataset = given.create_ready_dataset(database, tenant)
    given.submit_job(database, tenant, dataset)
    with server.running(settings) as encoder, serving(settings, operator) as api:
        encoder.until(status="ok")
        _record_heartbeats(database, settings)
        rest = scrape(api)
        _make_trouble(database, tenant, dataset, settings, api)
        with encoder.begin([b"x"] * PLACES, sent=0):  # its images have their places while it is read
            encoder.until(waiting=PLACES)
            _refuse(api, create_model(database, tenant, {}))
            trouble = scrape(api)
        encoder.stop()
        settings.data_dir.rename(folder / "unmounted")
        away = scrape(api)
    database.close()
    return Scrapes(rest, trouble, away)


def scrape(api: Live) -> Scrape:
    answer = api.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Scrape.parse(answer.text)


def _record_heartbeats(database: Database, settings: Settings) -> None:
    """Heartbeats of now: of a running job, the workers and a keeper; a backup and a verification have just ended."""
    for name in last_runs.NAMES:
        last_runs.record(settings.data_dir, name)
    with database.writing() as session:
        workers.record_heartbeat(session, "keeper@a", workers.KEEPER)
        for queue in ("train", "data"):
            workers.record_heartbeat(session, f"{queue}@a", queue)
    given.claim_job(database, lease_seconds=settings.lease_seconds)


def _make_trouble(database: Database, tenant: str, dataset: str, settings: Settings, api: Live) -> None:
    """An expired lease, failed and retried jobs, old queues, no worker, no keeper, old and bad maintenance, a 500."""
    lost = given.submit_job(database, tenant, dataset).id
    given.claim_job(database)
    for _ in range(4):
        given.submit_job(database, tenant, dataset)
        given.finish_job(database, given.claim_job(database), "failed", {"code": "failed", "detail": "It failed."})
    again = given.submit_job(database, tenant, dataset).id
    for _ in range(7):
        given.release_job(database, given.claim_job(database), counts=False)
    waiting = given.create_dataset(database, tenant, "cd" * 32)
    with database.writing() as session:
        now = clock(session)
        session.execute(update(Job).where(Job.id == lost).values(lease_until=now - 300))
        session.execute(update(Job).where(Job.id == again).values(queued_at=now - 30_000))
        session.execute(update(Job).where(Job.dataset_id == waiting.id).values(queued_at=now - 1000))
        session.execute(update(Worker).values(seen_at=now - 3600))
        session.execute(text("UPDATE jobs SET user_metadata = '{' WHERE id = :id"), {"id": lost})
    old = {"finished_at": time.time() - 20 * 86_400, "damaged": 2}
    for name in last_runs.NAMES:
        (settings.data_dir / f"last_{name}.json").write_text(json.dumps(old))
    assert api.client.get(f"/jobs/{lost}").status_code == 500


def _refuse(api: Live, model: str) -> None:
    """Send more images than the encoder has places for, and wrong keys beyond the limit of an address."""
    embed = {"data": {"model": model}, "files": [("images", pictures.png(0))] * PLACES}
    assert api.client.post("/embed", **embed).json()["code"] == "encoder_busy"
    headers = {"Authorization": "Bearer tv_wrong"}
    assert {api.client.get("/jobs", headers=headers).status_code for _ in range(140)} == {401, 429}

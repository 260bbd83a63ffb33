"""A dataset embedded by two workers, of which one is killed -9 twice: every image is in the result once."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from service import jobs, steering
from service.db.models import Artifact, Dataset, Job, Model
from service.db.session import Database
from service.storage import Storage
from ssl_core import config
from ssl_core.data.dataset import Dataset as PackedDataset
from ssl_core.data.image_store import read_centre_crops
from ssl_core.events import Result
from ssl_core.inputs import Inputs
from ssl_core.run import run
from ssl_core.serialization import saved_model
from tests.faults.fleet import Fleet, child_of, kill, trainer_of
from tests.processes import soon
from tests.service import given
from tests.ssl_core.digits import TINY, pack_digits

IMAGES = 1000
TRAINER = json.dumps([sys.executable, "-m", "ssl_core", "run"])
# A network and batches of one image, so that a worker alone takes ten seconds or more.
SLOW = {
    **TINY,
    "backbone": {"name": "resnet18", "width": 0.5, "stem": "cifar"},
    "image_size": 32,
    "phases": "auto",
}
CONFIG = {"rows_per_shard": 25, "batch_size": 1, "workers": 2, "precision": "fp32"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_digits(tmp_path_factory.mktemp("digits"), IMAGES, 0)


@pytest.fixture(scope="module")
def trained(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, after one epoch of few images."""
    out, few = tmp_path_factory.mktemp("model"), pack_digits(tmp_path_factory.mktemp("few"))
    asked = config.parse({"method": {"name": "simclr"}, "epochs": 1, "precision": "fp32", **SLOW})
    assert isinstance([*run(asked, Inputs(few), out)][-1], Result)
    return out / "model"


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with closing(Fleet(tmp_path, database_url, trainer_command=TRAINER)) as fleet:
        fleet.broker.start()
        yield fleet


@pytest.fixture
def job_id(fleet: Fleet, database: Database, tenant: str, packed: Path, trained: Path) -> str:
    """The job, on a dataset and a model that are in the storage."""
    dataset = given.create_ready_dataset(database, tenant, images=IMAGES, classes=10)
    made = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model(**saved_model.load_card(trained)))
    given.finish_job(database, claim)
    storage = Storage(fleet.settings.data_dir)
    with database.reading() as session:
        places = {
            packed: session.scalars(select(Dataset.path)).one(),
            trained: session.scalars(select(Model.path)).one(),
        }
    for source, place in places.items():
        shutil.copytree(source, storage.absolute(str(place)))
    return given.submit_job(database, tenant, dataset, "embed_dataset", model=made.id, config=CONFIG).id


def count_done(database: Database, job_id: str) -> int:
    with database.reading() as session:
        return len(jobs.artifacts(session, job_id))


def find_makers(database: Database, job_id: str) -> set[str]:
    """The jobs, that one and those that share it, whose workers have made its shards."""
    with database.reading() as session:
        return {artifact.path.split("/")[1] for artifact in jobs.artifacts(session, job_id)}


def status_of(database: Database, job_id: str) -> str:
    return str(given.get_job(database, job_id).status)


def sharers_of(database: Database, job_id: str) -> list[Job]:
    with database.reading() as session:
        return list(session.scalars(select(Job).where(Job.parent_id == job_id)))


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_every_image_is_embedded_once_although_a_worker_is_killed_twice(
    fleet: Fleet, database: Database, tenant: str, job_id: str, packed: Path, trained: Path
) -> None:
    fleet.keeper()
    workers = [fleet.worker(), fleet.worker()]
    soon(lambda: all(trainer_of(worker) for worker in workers))
    soon(lambda: len(find_makers(database, job_id)) == 2)
    victim = workers[1]
    for _ in range(2):
        done = count_done(database, job_id)
        soon(lambda done=done: trainer_of(victim) and count_done(database, job_id) > done)
        assert status_of(database, job_id) == "running"
        kill(child_of(victim).pid)
        soon(lambda: trainer_of(victim) or status_of(database, job_id) != "running")
    soon(lambda: status_of(database, job_id) in ("succeeded", "failed"), 240)
    job = given.get_job(database, job_id)
    assert job.status == "succeeded", (job.error, fleet.logs())
    assert {name: job.summary[name] for name in ("rows", "dim", "shards")} == {"rows": IMAGES, "dim": 256, "shards": 40}
    assert job.progress["percent"] == 100
    attempts = job.attempt + sum(sharer.attempt for sharer in sharers_of(database, job_id))
    assert attempts >= 3, "the kills had no effect"  # at the second the others may be about to end the job
    soon(lambda: all(sharer.status in ("succeeded", "cancelled") for sharer in sharers_of(database, job_id)))

    storage = Storage(fleet.settings.data_dir)
    with database.reading() as session:
        files = {row.name: row for row in session.scalars(select(Artifact).where(Artifact.job_id == job_id))}
    paths = {name: storage.absolute(row.path) for name, row in files.items()}
    for name, path in paths.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == files[name].sha256
    index = json.loads(paths["embeddings.json"].read_bytes())
    assert (index["dataset"], index["model"], index["rows"]) == (job.dataset_id, job.model_id, IMAGES)
    assert paths.keys() - {"embeddings.json"} == {
        shard[form] for shard in index["shards"] for form in ("npy", "parquet")
    }
    rows = [row for shard in index["shards"] for row in pq.read_table(paths[shard["parquet"]])["row"].to_pylist()]
    assert rows == [*range(IMAGES)]
    vectors = np.concatenate([np.load(paths[shard["npy"]]) for shard in index["shards"]])
    encoder, dataset = saved_model.load(trained), PackedDataset.open(packed)
    expected = encoder.encode(read_centre_crops(dataset, np.arange(IMAGES), encoder.image_size)).numpy()
    assert np.abs(vectors - expected).max() < 1e-6


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_pause_stops_both_workers_and_a_resumed_job_goes_on(
    fleet: Fleet, database: Database, tenant: str, job_id: str
) -> None:
    fleet.keeper()
    workers = [fleet.worker(), fleet.worker()]
    soon(lambda: all(trainer_of(worker) for worker in workers) and count_done(database, job_id) > 4)
    with database.writing() as session:
        steering.pause(session, tenant, job_id)
    soon(lambda: status_of(database, job_id) == "paused" and not any(trainer_of(worker) for worker in workers))
    done = count_done(database, job_id)
    soon(lambda: {str(sharer.status) for sharer in sharers_of(database, job_id)} == {"cancelled"})
    with database.writing() as session:
        steering.resume(session, tenant, job_id)
    soon(lambda: status_of(database, job_id) == "succeeded", 240)
    assert 0 < done < count_done(database, job_id) == 81

"""The target of fuzzing: a live API with an encoder, and a dataset, a job, a model, an index and a sweep."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service import keys, leases, workers
from service.aliases import store as aliases
from service.db import migrate
from service.db.session import Database
from service.indexes import registry
from service.settings import Settings
from service.storage import Storage
from service.sweeps import registry as sweeps
from ssl_core import config, events
from ssl_core.data.items import Item
from ssl_core.data.pack import pack
from ssl_core.files import write_artifact, write_atomic
from ssl_core.serialization import checkpoint_files
from tests import servers
from tests.api.live import Live, serving
from tests.service import given
from tests.worker.encoder import models, pictures
from tests.worker.encoder.server import running
from tests.worker.indexes import embedded
from worker.indexes.build import Options, build
from worker.indexes.embeddings import Embeddings, StoredFile


@dataclass(frozen=True)
class Existing:
    """What exists: ids and names by the parameters that take them, and the secret of their owner's key."""

    secret: str
    parameters: dict[str, str]


@contextmanager
def serving_target(database: str, folder: Path) -> Iterator[tuple[Live, Existing]]:
    """Serve the API in its own process, with its files in `folder`; `database` is sqlite or postgresql."""
    with ExitStack() as stack:
        url = stack.enter_context(servers.postgresql()) if database == "postgresql" else ""
        broker = stack.enter_context(servers.valkey(folder))
        settings = Settings(
            data_dir=folder / "data",
            database_url=url,
            broker_url=broker,
            wrong_keys_per_minute=10**6,
            worker_seen_seconds=86_400,
            long_poll_seconds=1,
        )
        settings.data_dir.mkdir()
        existing = prepare(settings)
        stack.enter_context(running(settings))
        yield stack.enter_context(serving(settings, existing.secret)), existing


def prepare(settings: Settings) -> Existing:
    """Create the schema, a dataset, and an ended job with a checkpoint, an artifact and a model, and their files."""
    database, storage = Database(settings.database), Storage(settings.data_dir)
    migrate.upgrade(database)
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "acme").id
        key, secret = keys.create(session, tenant, "fuzzing")
        parameters = {"key_id": key.id}
        workers.record_heartbeat(session, "worker-1", "train")  # no worker runs; `/health/ready` needs one
    dataset = given.create_ready_dataset(database, tenant)
    images = (Item(f"{row}.png", pictures.png(row, 16, 16), label=f"class {row % 4}") for row in range(100))
    pack(images, storage.dataset_dir(dataset, 1))
    job = given.submit_job(database, tenant, dataset).id
    claim = given.claim_job(database)
    folder = storage.attempt_dir(job, claim.attempt)
    card = models.make(folder / "model")
    weights = (folder / "model" / "weights.safetensors").read_bytes()
    saved = write_atomic(folder / checkpoint_files.file_name(1), b"not read by the API")
    batch = (
        given.metrics(1),
        events.Checkpoint(1, 0.1, saved.path.name, saved.sha256, saved.size_bytes),
        write_artifact(folder, "result.txt", b"a result"),
        events.Model("model", hashlib.sha256(weights).hexdigest(), len(weights), card["dim"], card),
        events.Result({}),
    )
    given.record_events(database, claim, *batch)
    given.finish_job(database, claim)
    model = given.get_job(database, job).made_model_id
    assert model is not None
    with database.writing() as session:
        parameters["alias"] = aliases.put(session, tenant, "prod", model).name
    embedded_id, index = prepare_index(database, storage, tenant, dataset, model)
    parameters["sweep_id"] = prepare_sweep(database, tenant, dataset)
    database.close()
    parameters |= {"dataset_id": dataset, "job_id": job, "model_id": model}
    return Existing(secret, parameters | {"embedded_id": embedded_id, "index_id": index})


def prepare_sweep(database: Database, tenant: str, dataset: str) -> str:
    """Insert a sweep of one trial, whose job no worker runs; return its id."""
    params = {"/seed": 1}
    plan = sweeps.Plan(
        kind="pretrain",
        config=given.PRETRAIN,
        space={"/seed": {"values": [1]}},
        search={"search": "grid", "trials": 1, "seed": 0},
        trials=[(params, config.parse(given.PRETRAIN | {"seed": 1}, "pretrain"))],
        parallel=1,
        metric="online/knn",
        goal="maximize",
        pruner=None,
    )
    with database.writing() as session:
        return sweeps.create(session, tenant, dataset, plan).id


def prepare_index(database: Database, storage: Storage, tenant: str, dataset: str, model: str) -> tuple[str, str]:
    """Insert a job with embeddings, and build their index; return the ids of both."""
    job = embedded.add_job(database, storage, tenant, embedded.draw(100), dataset=dataset, model=model)
    with database.writing() as session:
        index = registry.create(session, tenant, job).id
    claim = given.claim_job(database, "data")
    files = {file.name: StoredFile(storage.absolute(file.path), file.sha256) for file in claim.embeddings}
    built = build(Embeddings(files, None), storage.index_dir(index, 1), Options(10**6, 10**6, 2**30))
    with database.writing() as session:
        result = events.Result(built["report"] | {"layer": built["layer"]})
        leases.record_events(session, claim.job_id, 1, 60, [result], f"indexes/{index}/a1")
    given.finish_job(database, claim)
    return job, index

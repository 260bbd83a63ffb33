"""The target of fuzzing: a live API with a dataset, a job and a model, on SQLite or PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service import keys, workers
from service.db import migrate
from service.db.session import Database
from service.settings import Settings
from ssl_core import events
from tests import servers
from tests.api.live import Live, serving
from tests.service import given


@contextmanager
def serving_target(database: str, folder: Path) -> Iterator[Live]:
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
        )
        settings.data_dir.mkdir()
        yield stack.enter_context(serving(settings, prepare(settings)))


def prepare(settings: Settings) -> str:
    """Create the schema, a dataset, an ended job with a model and an artifact; return the secret of their key."""
    database = Database(settings.database)
    migrate.upgrade(database)
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "acme").id
        _, secret = keys.create(session, tenant, "fuzzing")
        workers.record_heartbeat(session, "worker-1", "train")  # no worker runs; `/health/ready` needs one
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    claim = given.claim_job(database)
    batch = (given.metrics(1), given.checkpoint(1), given.model(), events.Result({}))
    given.record_events(database, claim, *batch)
    given.finish_job(database, claim)
    database.close()
    assert job
    return secret

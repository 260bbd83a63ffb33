"""The event writer while the database is unreachable: no loss within the lease, no write after it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import make_url, select, update
from sqlalchemy.exc import DBAPIError

from service import leases
from service.db.models import Job
from service.db.session import Database, is_unreachable
from service.leases import LeaseLost
from tests.faults import trainer
from tests.processes import alive, soon
from tests.service import given
from tests.worker.conftest import TRAINER, Run
from tests.worker.trainer.test_supervisor import faulty
from worker.trainer.event_writer import EventWriter

pytestmark = [
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
    pytest.mark.usefixtures("_short_steps"),
]


@pytest.fixture
def disconnected(database_url: str, postgresql_server: str) -> Callable:
    """A context in which the database closes all connections and accepts none."""
    url = make_url(postgresql_server)
    name = make_url(database_url).database

    @contextmanager
    def disconnect() -> Iterator[None]:
        with psycopg.connect(f"host={url.query['host']} user=postgres dbname=postgres", autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            yield
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    return disconnect


def test_events_are_stored_when_the_database_is_back_within_the_lease(
    make_run: Callable[..., Run], disconnected: Callable
) -> None:
    run = make_run(epochs=30, seed=6)
    thread = threading.Thread(target=run.supervise, args=[str(TRAINER)])
    thread.start()
    soon(lambda: len(run.steps) > 5)
    with disconnected():
        threading.Event().wait(0.8)
    thread.join()
    assert (run.job.status, run.job.attempt) == ("succeeded", 1)
    assert run.steps == list(range(1, 301))
    weights = run.storage.attempt_dir(run.job_id, 1) / "model" / "weights.safetensors"
    assert weights.read_bytes() == trainer.weights(6, 300)


def test_a_checkpoint_is_stored_at_once_with_all_earlier_events(run: Run) -> None:
    claim = given.claim_job(run.database)
    settings = run.settings("").model_copy(update={"flush_seconds": 3600})
    events = EventWriter(
        claim, run.storage.root, f"jobs/{claim.job_id}/a1", run.database, settings, lambda session: None
    )
    events.add(given.metrics(1))
    events.flush()
    assert run.steps == []
    events.add(given.checkpoint(1))
    events.flush()
    assert run.steps == [1]
    assert [row.step for row in run.checkpoints] == [1]
    events.add(given.metrics(2))
    events.flush()
    assert run.steps == [1]  # metrics wait for the next flush


def test_the_file_of_an_old_checkpoint_is_deleted_only_when_newer_ones_are_stored(run: Run) -> None:
    claim = given.claim_job(run.database, lease_seconds=60)
    folder = run.storage.attempt_dir(claim.job_id, claim.attempt)
    folder.mkdir(parents=True)
    settings = run.settings("")
    events = EventWriter(claim, folder, run.storage.relative(folder), run.database, settings, lambda session: None)
    for step in (1, 2, 3, 4):  # by a trainer that is ahead of the database
        (folder / given.checkpoint(step).path).touch()
    for step in (1, 2, 3):
        events.add(given.checkpoint(step))
    events.flush()
    left = [given.checkpoint(step).path for step in (2, 3, 4)]
    assert sorted(path.name for path in folder.iterdir()) == left
    with run.database.writing() as session:
        session.execute(update(Job).values(lease_until=0))
        leases.reap(session)
    events.add(given.checkpoint(4))
    with pytest.raises(LeaseLost):
        events.flush()
    assert sorted(path.name for path in folder.iterdir()) == left
    assert all(run.storage.absolute(row.path).exists() for row in run.checkpoints)


def test_the_trainer_is_killed_when_the_database_is_unreachable_for_longer_than_the_lease(
    run: Run, disconnected: Callable
) -> None:
    run.lease_seconds = 1.5
    thread = threading.Thread(target=run.supervise, args=[faulty("sleeps")])
    thread.start()
    soon(lambda: run.steps)
    with disconnected():
        soon(lambda: not alive(run.read_pid("pid")))
        thread.join()
    assert run.job.status == "running"  # nothing was written: the keeper requeues it
    with run.database.writing() as session:
        assert leases.reap(session) == [run.job_id]
    assert run.job.status == "queued"


def test_a_worker_frozen_in_a_transaction_does_not_hold_its_job(run: Run, database_url: str) -> None:
    claim = given.claim_job(run.database, lease_seconds=0)
    frozen = Database(database_url, frozen_seconds=0.3)
    with pytest.raises(DBAPIError) as error, frozen.writing() as session:  # noqa: PT012 — the sleep is within the transaction
        leases.record_events(session, claim.job_id, claim.attempt, 60, [], "")
        soon(lambda: is_reaped(run))
        session.execute(select(1))
    assert is_unreachable(error.value)
    assert run.job.status == "queued"
    frozen.close()


def is_reaped(run: Run) -> bool:
    with run.database.writing() as session:
        return leases.reap(session) == [run.job_id]

"""The ledger while the database is away: nothing is lost within the lease, and nothing is written after it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import make_url, select
from sqlalchemy.exc import DBAPIError

from service import leases
from service.db.session import Database, is_unreachable
from tests.faults import trainer
from tests.processes import alive, soon
from tests.service import given
from tests.worker.conftest import TRAINER, Run
from tests.worker.trainer.test_supervisor import odd
from worker.trainer.ledger import Ledger

pytestmark = [
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
    pytest.mark.usefixtures("_quick_steps"),
]


@pytest.fixture
def cut(database_url: str, postgresql_server: str) -> Callable:
    """While in this context, the database throws everybody out and lets nobody in."""
    url = make_url(postgresql_server)
    name = make_url(database_url).database

    @contextmanager
    def away() -> Iterator[None]:
        with psycopg.connect(f"host={url.query['host']} user=postgres dbname=postgres", autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            yield
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    return away


def test_events_wait_for_a_database_that_comes_back_in_time(a_run: Callable[..., Run], cut: Callable) -> None:
    run = a_run(epochs=30, seed=6)
    thread = threading.Thread(target=run.supervise, args=[str(TRAINER)])
    thread.start()
    soon(lambda: len(run.steps) > 5)
    with cut():
        threading.Event().wait(0.8)
    thread.join()
    assert (run.job.status, run.job.attempt) == ("succeeded", 1)
    assert run.steps == list(range(1, 301))
    weights = run.storage.attempt_dir(run.job_id, 1) / "model" / "weights.safetensors"
    assert weights.read_bytes() == trainer.weights(6, 300)


def test_a_checkpoint_is_stored_at_once_with_all_that_came_before_it(run: Run) -> None:
    claim = given.claim_job(run.database)
    patient = run.settings("").model_copy(update={"flush_seconds": 3600})
    ledger = Ledger(claim, f"jobs/{claim.job_id}/a1", run.database, patient, lambda session: None)
    ledger.add(given.metrics(1))
    ledger.sync()
    assert run.steps == []
    ledger.add(given.checkpoint(1))
    ledger.sync()
    assert run.steps == [1]
    assert [row.step for row in run.checkpoints] == [1]
    ledger.add(given.metrics(2))
    ledger.sync()
    assert run.steps == [1]  # and then there is no hurry again


def test_the_trainer_is_killed_when_the_database_is_away_for_longer_than_the_lease(run: Run, cut: Callable) -> None:
    run.lease_seconds = 1.5
    thread = threading.Thread(target=run.supervise, args=[odd("patient")])
    thread.start()
    soon(lambda: run.steps)
    with cut():
        soon(lambda: not alive(run.left("pid")))
        thread.join()
    assert run.job.status == "running"  # nothing was written: it is the keeper's to take back
    with run.database.writing() as session:
        assert leases.reap(session) == [run.job_id]
    assert run.job.status == "queued"


def test_a_worker_frozen_in_a_transaction_does_not_hold_its_job(run: Run, database_url: str) -> None:
    claim = given.claim_job(run.database, lease_seconds=0)
    frozen = Database(database_url, frozen_seconds=0.3)
    with pytest.raises(DBAPIError) as hung_up, frozen.writing() as session:  # noqa: PT012 — the freeze is within
        leases.record_events(session, claim.job_id, claim.attempt, 60, [], "")
        soon(lambda: reaped(run))
        session.execute(select(1))
    assert is_unreachable(hung_up.value)
    assert run.job.status == "queued"
    frozen.close()


def reaped(run: Run) -> bool:
    with run.database.writing() as session:
        return leases.reap(session) == [run.job_id]

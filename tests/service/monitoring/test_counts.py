"""Counts for Prometheus: jobs, attempts, queues and leases, of all or of one tenant."""

import pytest
from sqlalchemy import event, update

from service import lifecycle, steering
from service.db.models import Job
from service.db.session import clock
from service.monitoring import counts
from tests.service import given

LEASE_SECONDS = 60


def count(database, tenant_id=None):
    with database.reading() as session:
        return counts.count(session, tenant_id, LEASE_SECONDS)


def change(database, job, **values):
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == job).values(values))


def test_every_kind_has_a_queue():
    from ssl_core.config import KINDS

    assert counts.QUEUE_OF_KIND.keys() == {*KINDS, "ingest", "import", "index", "embed_shards"}
    assert set(counts.QUEUE_OF_KIND.values()) == {"train", "data"}


def test_an_attempt_counts_as_retried_once_the_next_begins_and_no_count_falls(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    job = given.submit_job(database, tenant, dataset).id
    seen = []
    given.release_job(database, given.claim_job(database))
    seen.append(count(database).attempts)
    second = given.claim_job(database)
    seen.append(count(database).attempts)
    given.release_job(database, second)
    with database.writing() as session:
        lifecycle.cancel(session, session.get_one(Job, job))
    seen.append(count(database).attempts)
    assert [found["pretrain", "retried"] for found in seen] == [0, 1, 1]
    assert [found["pretrain", "cancelled"] for found in seen] == [0, 0, 1]
    assert seen[0]["ingest", "succeeded"] == 1
    assert count(database).ended["pretrain", "cancelled"] == 1


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_no_count_falls_when_jobs_are_retried(database, tenant, stranger, ending):
    dataset = given.create_ready_dataset(database, tenant)
    jobs = [given.submit_job(database, tenant, dataset).id for _ in range(2)]
    ended, attempts = [], []

    def look():
        found = count(database)
        ended.append(found.ended["pretrain", ending])
        attempts.append((found.attempts["pretrain", ending], found.attempts["pretrain", "retried"]))

    for job in jobs:
        claim = given.claim_job(database)
        given.finish_job(database, claim, ending)
        look()
        with database.writing() as session:
            steering.retry(session, tenant, job)
        look()
        given.finish_job(database, given.claim_job(database), "succeeded")
        look()
    assert ended == [1, 1, 1, 2, 2, 2]
    assert attempts == [(1, 0), (1, 0), (1, 1), (2, 1), (2, 1), (2, 2)]
    assert count(database, stranger).ended["pretrain", ending] == 0


def test_a_job_is_as_old_as_its_last_return_to_the_queue(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    job = given.submit_job(database, tenant, dataset).id
    with database.reading() as session:
        now = clock(session)
    change(database, job, queued_at=now - 5000)
    assert count(database).queued["pretrain"].oldest_seconds == pytest.approx(5000, abs=60)
    given.release_job(database, given.claim_job(database))
    found = count(database).queued["pretrain"]
    assert found.jobs == 1
    assert found.oldest_seconds < 60


def test_a_queued_job_that_shares_another_does_not_wait(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    trained = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    given.submit_job(
        database, tenant, dataset, "embed_dataset", model=trained.id, config={"rows_per_shard": 20, "workers": 3}
    )
    given.claim_job(database)
    with database.writing() as session:
        session.execute(update(Job).where(Job.kind == "embed_shards").values(queued_at=Job.queued_at - 90_000))
    assert count(database).queued["embed_shards"] == counts.Queued(2, 0)


def test_a_job_that_waited_for_its_model_is_queued_from_then_on(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    parent = given.submit_job(database, tenant, dataset).id
    child = given.submit_job(database, tenant, dataset, "knn_eval", model=parent).id
    assert given.get_job(database, child).queued_at is None
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    row = given.get_job(database, child)
    assert row.status == "queued"
    assert row.queued_at >= row.created_at
    assert count(database).queued["knn_eval"].jobs == 1


def test_the_oldest_heartbeat_follows_from_the_lease(database, tenant, stranger):
    dataset = given.create_ready_dataset(database, tenant)
    jobs = [given.submit_job(database, tenant, dataset).id for _ in range(2)]
    for _ in jobs:
        given.claim_job(database, lease_seconds=LEASE_SECONDS)
    assert count(database).leases["pretrain"].heartbeat_seconds < 30
    with database.reading() as session:
        change(database, jobs[1], lease_until=clock(session) - 100)
    found = count(database).leases["pretrain"]
    assert found.expired == 1
    assert found.heartbeat_seconds == pytest.approx(160, abs=30)
    assert count(database, stranger).leases["pretrain"] == counts.Leases()


def test_a_count_is_four_queries_that_read_no_row_of_a_job_that_has_ended(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    for _ in range(3):
        given.submit_job(database, tenant, dataset)
    statements = []

    def add(connection, cursor, statement, parameters, context, executemany):
        if statement != "BEGIN":
            statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", add)
    count(database)
    event.remove(database.engine, "before_cursor_execute", add)
    assert len(statements) == 4
    if database.is_local:
        with database.engine.connect() as connection:
            plans = [
                [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
                for statement, parameters in statements
            ]
        assert any("COVERING INDEX ix_jobs_tenant_id_kind_status_attempt_queued_at" in line for line in plans[0])
        assert any("INDEX ix_jobs_status_lease_until" in line for line in plans[3])

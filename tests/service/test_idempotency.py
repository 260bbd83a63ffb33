"""Idempotency: stored responses, concurrent requests and expiry."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import OperationalError

from service import idempotency, keys
from service.db.models import Idempotency, Key
from service.db.session import is_unreachable, now
from service.errors import IdempotencyInFlight, IdempotencyMismatch, InvalidRequest
from service.idempotency import StoredResponse

PRINT = "cd" * 32
# On SQLite every writer waits for the write lock: see `test_session`.
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
QUEUED = """FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def create_key_once(database, tenant, key="k1", fingerprint=PRINT):
    """Create an API key, once for each Idempotency-Key; return the response."""
    with database.writing() as session:
        known = idempotency.find_response(session, tenant, key, fingerprint)
        if known is not None:
            return known
        created, _ = keys.create(session, tenant, "made")
        answer = StoredResponse(201, f"/keys/{created.id}", {"id": created.id})
        idempotency.store_response(session, tenant, key, fingerprint, answer)
        return answer


def count_keys(database):
    with database.reading() as session:
        return session.execute(select(func.count()).select_from(Key)).scalar_one()


def wait_for_lock(database):
    """Return when a transaction waits for the lock of an Idempotency-Key."""
    until = time.monotonic() + 30
    with database.reading() as session:
        while not session.execute(text(f"SELECT count(*) {QUEUED}")).scalar_one():
            assert time.monotonic() < until, "no transaction waits"
            time.sleep(0.01)


def test_repeated_request_gets_the_stored_response(database, tenant):
    assert create_key_once(database, tenant) == create_key_once(database, tenant)
    assert count_keys(database) == 1


def test_concurrent_requests_are_processed_once(database, tenant):
    barrier = Barrier(6)

    def ask():
        barrier.wait()
        return create_key_once(database, tenant)

    with ThreadPoolExecutor(6) as pool:
        answers = [future.result() for future in [pool.submit(ask) for _ in range(6)]]
    assert len({answer.location for answer in answers}) == 1
    assert count_keys(database) == 1


@ON_POSTGRESQL
def test_second_request_waits_for_the_first_response(database, tenant):
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            assert idempotency.find_response(session, tenant, "k1", PRINT) is None
            second = pool.submit(create_key_once, database, tenant)
            wait_for_lock(database)
            idempotency.store_response(session, tenant, "k1", PRINT, StoredResponse(201, "/keys/first", {}))
        assert second.result(30) == StoredResponse(201, "/keys/first", {})
    assert count_keys(database) == 0


@ON_POSTGRESQL
def test_second_request_is_processed_when_the_first_is_rolled_back(database, tenant):
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            assert idempotency.find_response(session, tenant, "k1", PRINT) is None
            idempotency.store_response(session, tenant, "k1", PRINT, StoredResponse(201, "/keys/first", {}))
            second = pool.submit(create_key_once, database, tenant)
            wait_for_lock(database)
            session.rollback()
        assert second.result(30).location != "/keys/first"
    assert count_keys(database) == 1


@ON_POSTGRESQL
def test_second_request_times_out_while_the_first_runs(database, tenant, stranger, monkeypatch):
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 1)
    with database.writing() as session:
        assert idempotency.find_response(session, tenant, "k1", PRINT) is None
        with pytest.raises(IdempotencyInFlight) as caught:
            create_key_once(database, tenant)
        assert caught.value.retry_after == 1
        create_key_once(database, tenant, "k2")
        create_key_once(database, stranger)  # other keys, and keys of other tenants, do not wait
    create_key_once(database, tenant)
    assert count_keys(database) == 3


@ON_POSTGRESQL
def test_connection_lost_while_waiting_is_unreachable(database, tenant):
    with ThreadPoolExecutor(1) as pool, database.writing() as session:
        assert idempotency.find_response(session, tenant, "k1", PRINT) is None
        second = pool.submit(create_key_once, database, tenant)
        wait_for_lock(database)
        with database.reading() as other:
            other.execute(text(f"SELECT pg_terminate_backend(pid) {QUEUED}"))
        with pytest.raises(OperationalError) as caught:
            second.result(30)
    assert is_unreachable(caught.value)


def test_different_request_with_the_same_key_is_refused(database, tenant):
    create_key_once(database, tenant)
    with pytest.raises(IdempotencyMismatch):
        create_key_once(database, tenant, fingerprint="ef" * 32)


def test_tenants_do_not_share_idempotency_keys(database, tenant, stranger):
    assert create_key_once(database, tenant) != create_key_once(database, stranger)


def test_rolled_back_response_is_not_stored(database, tenant):
    with database.writing() as session:
        idempotency.find_response(session, tenant, "k1", PRINT)
        idempotency.store_response(session, tenant, "k1", PRINT, StoredResponse(201, None, {}))
        session.rollback()
    create_key_once(database, tenant)
    assert count_keys(database) == 1


def test_expired_response_is_ignored(database, tenant):
    create_key_once(database, tenant)
    with database.writing() as session:
        session.execute(update(Idempotency).values(created_at=now() - 25 * 3600))
    create_key_once(database, tenant, fingerprint="ef" * 32)
    assert count_keys(database) == 2


def test_expired_responses_are_deleted(database, tenant):
    create_key_once(database, tenant, "old")
    with database.writing() as session:
        session.execute(update(Idempotency).values(created_at=now() - 25 * 3600))
    create_key_once(database, tenant, "new")
    with database.writing() as session:
        idempotency.delete_expired(session)
    with database.reading() as session:
        assert session.scalars(select(Idempotency.key)).all() == ["new"]


def test_invalid_idempotency_key_is_refused(database, tenant):
    for key in ("", "a\x00", "x" * 256):
        with pytest.raises(InvalidRequest):
            create_key_once(database, tenant, key)

"""Idempotency: the same key does the work once, whoever comes twice and whenever."""

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
# On SQLite the second waits for its turn to write, whatever it wants to write: `test_turns` has that.
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
QUEUED = """FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def asked(database, tenant, key="k1", fingerprint=PRINT):
    """Make a key, once for each Idempotency-Key; return the answer."""
    with database.writing() as session:
        known = idempotency.find_response(session, tenant, key, fingerprint)
        if known is not None:
            return known
        made, _ = keys.create(session, tenant, "made")
        answer = StoredResponse(201, f"/keys/{made.id}", {"id": made.id})
        idempotency.store_response(session, tenant, key, fingerprint, answer)
        return answer


def made(database):
    with database.reading() as session:
        return session.execute(select(func.count()).select_from(Key)).scalar_one()


def until_one_waits(database):
    """Return when a transaction waits for another that holds its key."""
    until = time.monotonic() + 30
    with database.reading() as session:
        while not session.execute(text(f"SELECT count(*) {QUEUED}")).scalar_one():
            assert time.monotonic() < until, "nobody waits"
            time.sleep(0.01)


def test_a_repeated_request_gets_the_first_answer(database, tenant):
    assert asked(database, tenant) == asked(database, tenant)
    assert made(database) == 1


def test_requests_that_come_together_do_the_work_once(database, tenant):
    barrier = Barrier(6)

    def ask():
        barrier.wait()
        return asked(database, tenant)

    with ThreadPoolExecutor(6) as pool:
        answers = [future.result() for future in [pool.submit(ask) for _ in range(6)]]
    assert len({answer.location for answer in answers}) == 1
    assert made(database) == 1


@ON_POSTGRESQL
def test_the_second_waits_for_the_first_and_gets_its_answer(database, tenant):
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            assert idempotency.find_response(session, tenant, "k1", PRINT) is None
            second = pool.submit(asked, database, tenant)
            until_one_waits(database)
            idempotency.store_response(session, tenant, "k1", PRINT, StoredResponse(201, "/keys/first", {}))
        assert second.result(30) == StoredResponse(201, "/keys/first", {})
    assert made(database) == 0


@ON_POSTGRESQL
def test_the_second_does_the_work_when_the_first_is_rolled_back(database, tenant):
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            assert idempotency.find_response(session, tenant, "k1", PRINT) is None
            idempotency.store_response(session, tenant, "k1", PRINT, StoredResponse(201, "/keys/first", {}))
            second = pool.submit(asked, database, tenant)
            until_one_waits(database)
            session.rollback()
        assert second.result(30).location != "/keys/first"
    assert made(database) == 1


@ON_POSTGRESQL
def test_the_second_is_told_to_come_again_when_the_first_takes_long(database, tenant, stranger, monkeypatch):
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 1)
    with database.writing() as session:
        assert idempotency.find_response(session, tenant, "k1", PRINT) is None
        with pytest.raises(IdempotencyInFlight) as caught:
            asked(database, tenant)
        assert caught.value.retry_after == 1
        asked(database, tenant, "k2")
        asked(database, stranger)  # other keys, and others' keys, wait for nobody
    asked(database, tenant)
    assert made(database) == 3


@ON_POSTGRESQL
def test_a_database_that_hangs_up_on_one_who_waits_is_away(database, tenant):
    with ThreadPoolExecutor(1) as pool, database.writing() as session:
        assert idempotency.find_response(session, tenant, "k1", PRINT) is None
        second = pool.submit(asked, database, tenant)
        until_one_waits(database)
        with database.reading() as other:
            other.execute(text(f"SELECT pg_terminate_backend(pid) {QUEUED}"))
        with pytest.raises(OperationalError) as caught:
            second.result(30)
    assert is_unreachable(caught.value)


def test_another_request_under_the_same_key_is_refused(database, tenant):
    asked(database, tenant)
    with pytest.raises(IdempotencyMismatch):
        asked(database, tenant, fingerprint="ef" * 32)


def test_tenants_do_not_share_keys(database, tenant, stranger):
    assert asked(database, tenant) != asked(database, stranger)


def test_work_that_was_rolled_back_is_not_remembered(database, tenant):
    with database.writing() as session:
        idempotency.find_response(session, tenant, "k1", PRINT)
        idempotency.store_response(session, tenant, "k1", PRINT, StoredResponse(201, None, {}))
        session.rollback()
    asked(database, tenant)
    assert made(database) == 1


def test_an_old_answer_is_forgotten(database, tenant):
    asked(database, tenant)
    with database.writing() as session:
        session.execute(update(Idempotency).values(created_at=now() - 25 * 3600))
    asked(database, tenant, fingerprint="ef" * 32)
    assert made(database) == 2


def test_old_answers_are_swept_and_new_ones_stay(database, tenant):
    asked(database, tenant, "old")
    with database.writing() as session:
        session.execute(update(Idempotency).values(created_at=now() - 25 * 3600))
    asked(database, tenant, "new")
    with database.writing() as session:
        idempotency.delete_expired(session)
    with database.reading() as session:
        assert session.scalars(select(Idempotency.key)).all() == ["new"]


def test_a_key_that_cannot_be_stored_is_refused(database, tenant):
    for key in ("", "a\x00", "x" * 256):
        with pytest.raises(InvalidRequest):
            asked(database, tenant, key)

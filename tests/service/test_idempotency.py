"""Idempotency: the same key does the work once, whoever comes twice and whenever."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select, update

from service import idempotency, keys
from service.db.models import Idempotency, Key
from service.db.session import now
from service.errors import IdempotencyMismatch, InvalidRequest
from service.idempotency import Answer

PRINT = "cd" * 32


def asked(database, tenant, key="k1", fingerprint=PRINT):
    """Make a key, once for each Idempotency-Key; return the answer."""
    with database.writing() as session:
        known = idempotency.recall(session, tenant, key, fingerprint)
        if known is not None:
            return known
        made, _ = keys.create(session, tenant, "made")
        answer = Answer(201, f"/keys/{made.id}", {"id": made.id})
        idempotency.remember(session, tenant, key, fingerprint, answer)
        return answer


def made(database):
    with database.reading() as session:
        return session.execute(select(func.count()).select_from(Key)).scalar_one()


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


def test_another_request_under_the_same_key_is_refused(database, tenant):
    asked(database, tenant)
    with pytest.raises(IdempotencyMismatch):
        asked(database, tenant, fingerprint="ef" * 32)


def test_tenants_do_not_share_keys(database, tenant, stranger):
    assert asked(database, tenant) != asked(database, stranger)


def test_work_that_was_rolled_back_is_not_remembered(database, tenant):
    with database.writing() as session:
        idempotency.recall(session, tenant, "k1", PRINT)
        idempotency.remember(session, tenant, "k1", PRINT, Answer(201, None, {}))
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
        idempotency.forget(session)
    with database.reading() as session:
        assert session.scalars(select(Idempotency.key)).all() == ["new"]


def test_a_key_that_cannot_be_stored_is_refused(database, tenant):
    for key in ("", "a\x00", "x" * 256):
        with pytest.raises(InvalidRequest):
            asked(database, tenant, key)

"""API keys: authentication and revocation."""

import pytest
from sqlalchemy import select

from service import keys
from service.db.models import Key
from service.db.session import clock
from service.errors import InvalidRequest, NoSuchKey, WrongKey


def test_new_key_authenticates_as_its_tenant(database, tenant):
    with database.writing() as session:
        key, secret = keys.create(session, tenant, "laptop")
    with database.reading() as session:
        assert keys.authenticate(session, secret) == keys.Identity(tenant, key.id, "laptop")


def test_secret_is_not_stored(database, tenant):
    with database.writing() as session:
        _, secret = keys.create(session, tenant, "laptop")
    with database.reading() as session:
        row = session.execute(select(Key)).scalar_one()
        assert secret not in {str(value) for value in vars(row).values()}


def test_unknown_key_is_refused(database):
    for wrong in ("", "tv_nonsense", "tv_\x00", "\udc80"):
        with database.reading() as session, pytest.raises(WrongKey):
            keys.authenticate(session, wrong)


def test_revoked_and_expired_keys_are_not_valid(database, tenant):
    with database.writing() as session:
        now = clock(session)
        expiries = {"endless": None, "later": now + 1000, "expired": now - 1, "revoked": None}
        ids = {name: keys.create(session, tenant, name, expires_at=expiry)[0].id for name, expiry in expiries.items()}
        keys.revoke(session, tenant, ids["revoked"])
    with database.reading() as session:
        assert keys.list_valid(session, [*ids.values(), "key_none"]) == {ids["endless"], ids["later"]}
        assert keys.list_valid(session, []) == set()


def test_revoke_is_idempotent(database, tenant):
    with database.writing() as session:
        key, secret = keys.create(session, tenant, "laptop")
    with database.writing() as session:
        first = keys.revoke(session, tenant, key.id).revoked_at
    with database.writing() as session:
        assert keys.revoke(session, tenant, key.id).revoked_at == first
    with database.reading() as session, pytest.raises(WrongKey):
        keys.authenticate(session, secret)


def test_key_of_another_tenant_is_not_found(database, tenant, stranger):
    with database.writing() as session:
        key, secret = keys.create(session, tenant, "laptop")
    with database.writing() as session, pytest.raises(NoSuchKey):
        keys.revoke(session, stranger, key.id)
    with database.reading() as session:
        assert keys.list_(session, stranger) == []
        assert [found.id for found in keys.list_(session, tenant)] == [key.id]
        keys.authenticate(session, secret)


def test_tenant_is_created_once(database, tenant):
    with database.writing() as session:
        assert keys.get_or_create_tenant(session, "acme").id == tenant


def test_unprintable_key_name_is_refused(database, tenant):
    with database.writing() as session, pytest.raises(InvalidRequest):
        keys.create(session, tenant, "lap\x00top")

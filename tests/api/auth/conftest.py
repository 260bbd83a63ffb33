"""Fixtures: clients with keys of given scopes and expiry."""

import pytest

from service import keys
from tests.api.conftest import TestClient


@pytest.fixture
def make_client(app, anonymous, database, tenant):
    """Return a function that makes a client with a new key of the tenant; its `key_id` is the key's."""

    def make(name="limited", **options):
        with database.writing() as session:
            key, secret = keys.create(session, tenant, name, **options)
        client = TestClient(app, headers={"Authorization": f"Bearer {secret}"})
        client.key_id = key.id
        return client

    return make

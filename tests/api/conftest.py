"""Fixtures: the application on a real database, and clients with and without a key."""

import warnings
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from api.app import create
from service import keys

with warnings.catch_warnings():  # it recommends httpx2; `twoviews` uses httpx, and so do the tests
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


@pytest.fixture
def app(settings) -> FastAPI:
    return create(settings)


@pytest.fixture
def key(database, tenant) -> str:
    """The secret of one of the tenant's keys."""
    with database.writing() as session:
        return keys.create(session, tenant, "test")[1]


@pytest.fixture
def anonymous(app) -> Iterator[TestClient]:
    """A client without a key. It raises unhandled exceptions of the application."""
    with TestClient(app) as client:
        yield client


@pytest.fixture
def client(app, anonymous, key) -> TestClient:
    """A client with the tenant's key."""
    return TestClient(app, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def other(app, anonymous, database, stranger) -> TestClient:
    """A client with another tenant's key."""
    with database.writing() as session:
        _, secret = keys.create(session, stranger, "other")
    return TestClient(app, headers={"Authorization": f"Bearer {secret}"})

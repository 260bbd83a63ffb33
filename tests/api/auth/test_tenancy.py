"""Tenancy: for every route, what another owner has answers exactly like what does not exist."""

import re

import pytest

from api.app import ROUTERS, create
from api.auth.scopes import find_scope
from service import keys
from service.db.session import Database
from tests.api.conftest import TestClient
from tests.api.fuzz.target import prepare

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
VALUES = {"row": "0", "name": "result.txt"}  # of parameters that name no resource of an owner
OWN_LISTS = {"/keys", "/audit", "/usage", "/metrics", "/methods", "/backbones", "/recipes"}  # not empty for a new owner


def body_of(method, path, ids):
    """The JSON body of a request that refers to resources."""
    if method not in ("POST", "PUT"):
        return None
    return {
        "/jobs": {"kind": "knn_eval", "dataset": ids["dataset_id"], "model": ids["model_id"]},
        "/jobs/{job_id}/clone": {"dataset": ids["dataset_id"]},
        "/embed": {"model": ids["model_id"], "images": ["aGk="]},
        "/indexes": {"job": ids["embedded_id"]},
        "/indexes/{index_id}/search": {"row": 0},
        "/sweeps": {"dataset": ids["dataset_id"], "space": {"/seed": {"values": [1]}}},
        "/aliases/{alias}": {"model": ids["model_id"]},
        "/keys": {"name": "laptop"},
    }.get(path)


def query_of(path, ids):
    return {"/jobs/compare": {"ids": ids["job_id"]}, "/leaderboard": {"dataset": ids["dataset_id"]}}.get(path)


@pytest.fixture
def owned(settings):
    """The ids of an owner who has one of everything."""
    return prepare(settings)


@pytest.fixture
def stranger_client(settings, owned):
    database = Database(settings.database)
    with database.writing() as session:
        secret = keys.create(session, keys.get_or_create_tenant(session, "stranger").id, "other")[1]
    database.close()
    with TestClient(create(settings), headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client


def invent(name, value):
    """An id of the same kind that does not exist."""
    return re.sub(r"_.*", "_06h0000000000000000000000", value) if "_" in value else "missing"


def routes():
    return sorted(
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
        if find_scope(route.endpoint) is not None
    )


def ask(client, method, path, ids):
    """The response to a request about the resources of these ids."""
    filled = re.sub(r"\{(\w+)\}", lambda match: VALUES.get(match[1]) or ids[match[1]], path)
    return client.request(method, filled, json=body_of(method, path, ids), params=query_of(path, ids))


def summarise(answer):
    """What a client learns from the response, apart from the id that it has sent."""
    if answer.headers["content-type"] != "application/problem+json" or not answer.content:
        return answer.status_code, None
    body = answer.json()
    said = re.sub(r"(ds|job|mdl|idx|swp|key)_\w+|\bprod\b|\bmissing\b", "…", f"{body['detail']} {body['errors']}")
    return answer.status_code, body["code"], said


@on_sqlite
def test_what_another_owner_has_answers_like_what_does_not_exist(stranger_client, owned):
    ids = owned.parameters
    missing = {name: invent(name, value) for name, value in ids.items()}
    about = [
        (method, path) for method, path in routes() if "{" in path or body_of(method, path, ids) or query_of(path, ids)
    ]
    assert len(about) > 35
    for method, path in about:
        if (method, path) in (("POST", "/keys"), ("POST", "/datasets"), ("POST", "/models")):
            continue  # they refer to nothing
        theirs, absent = (summarise(ask(stranger_client, method, path, each)) for each in (ids, missing))
        assert theirs == absent, (method, path)
        assert theirs[0] in (404, 422), (method, path, theirs)


@on_sqlite
def test_a_new_owner_has_empty_lists_and_the_other_still_has_everything(stranger_client, owned, settings):
    lists = [path for method, path in routes() if method == "GET" and "{" not in path and path not in OWN_LISTS]
    checked = 0
    for path in lists:
        answer = stranger_client.get(path)
        if answer.status_code == 200:
            assert answer.json()["data"] == [], path
            checked += 1
    assert checked >= 5
    with TestClient(create(settings), headers={"Authorization": f"Bearer {owned.secret}"}) as owner:
        for path, name in (
            ("datasets", "dataset_id"),
            ("jobs", "job_id"),
            ("models", "model_id"),
            ("indexes", "index_id"),
            ("sweeps", "sweep_id"),
        ):
            assert owner.get(f"/{path}/{owned.parameters[name]}").status_code == 200, path
        assert owner.get("/aliases").json()["data"][0]["name"] == "prod"

"""Routes of /keys, and authentication."""

import re
import sqlite3

import pytest
from sqlalchemy import select

from api import schemas
from api.wrong_keys import WrongKeyBrake
from service import idempotency, keys
from service.db.models import Idempotency
from tests.api.responses import check_body, check_problem, get_pointers


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def test_new_key_is_valid_until_revoked(client, anonymous):
    created = check_body(schemas.MadeKey, client.post("/keys", json={"name": "laptop"}), 201)
    assert anonymous.get("/jobs", headers=bearer(created["key"])).status_code == 200
    assert client.delete(f"/keys/{created['id']}").status_code == 204
    answer = anonymous.get("/jobs", headers=bearer(created["key"]))
    check_problem(answer, 401, "wrong_key")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert client.delete(f"/keys/{created['id']}").status_code == 204
    listed = check_body(schemas.KeyList, client.get("/keys"))["data"]
    assert [(row["name"], row["revoked_at"] is None) for row in listed] == [("laptop", False), ("test", True)]
    assert created["key"] not in client.get("/keys").text


@pytest.mark.parametrize("sent", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "tv_x"])
def test_missing_key_is_401(anonymous, sent):
    answer = anonymous.get("/jobs", headers={} if sent is None else {"Authorization": sent})
    assert check_problem(answer, 401, answer.json()["code"])["code"] in ("missing_key", "wrong_key")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("sent", ["tv_wrong", "x" * 10_000, "tv_\xff\xfe", "' OR 1=1 --", "a b c"])
def test_wrong_key_is_401(anonymous, sent):
    check_problem(
        anonymous.get("/jobs", headers={"Authorization": f"Bearer {sent}".encode("latin-1")}), 401, "wrong_key"
    )


BODIES = {
    "/datasets": {"files": {"file": ("a.zip", b"bytes")}},
    "/jobs": {"json": {"kind": "pretrain", "dataset": "ds_x", "config": {"method": {"name": "simclr"}}}},
    "/embed": {"json": {"model": "mdl_x", "images": ["aGk="]}},
    "/keys": {"json": {"name": "laptop"}},
}


QUERIES = {"/jobs/compare": {"ids": "job_x"}, "/leaderboard": {"dataset": "ds_x"}}


@pytest.mark.parametrize(("headers", "code"), [({}, "missing_key"), (bearer("tv_wrong"), "wrong_key")])
def test_every_route_but_health_and_openapi_needs_a_key(app, anonymous, storage, headers, code):
    app.state.wrong_keys = WrongKeyBrake(1000)
    places = [(method, route) for route, item in app.openapi()["paths"].items() for method in item]
    assert len(places) > 20
    for method, route in places:
        body = BODIES.get(route, {}) if method == "post" else {}
        path = re.sub(r"[{}]", "", route.replace("{row}", "0"))
        answer = anonymous.request(method.upper(), path, headers=headers, params=QUERIES.get(route), **body)
        if route.startswith("/health/"):
            assert answer.status_code in (200, 503)
        elif route == "/sessions":  # a token takes the place of a key
            assert answer.status_code == 422
        else:
            assert answer.status_code == 401, (method, route, answer.text)
            check_problem(answer, 401, code)
    assert list(storage.root.rglob("*")) == [storage.root / "tmp"] or not list(storage.root.rglob("*"))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_request_without_key_is_not_validated(anonymous):
    for body in ({}, {"name": 3}, {"kind": "nothing"}):
        check_problem(anonymous.post("/keys", json=body), 401, "missing_key")
        check_problem(anonymous.post("/jobs", json=body), 401, "missing_key")
    check_problem(anonymous.get("/jobs", params={"limit": "x"}), 401, "missing_key")


def test_key_of_another_tenant_cannot_be_revoked(client, other, database, stranger):
    with database.reading() as session:
        (theirs,) = keys.list_(session, stranger)
    check_problem(client.delete(f"/keys/{theirs.id}"), 404, "no_such_key")
    assert other.get("/jobs").status_code == 200
    assert theirs.id not in client.get("/keys").text


def test_repeated_request_returns_the_same_secret(client, anonymous, database, tenant):
    once = {"Idempotency-Key": "key-1"}
    first = client.post("/keys", json={"name": "laptop"}, headers=once)
    second = client.post("/keys", json={"name": "laptop"}, headers=once)
    assert (second.status_code, second.json()) == (201, first.json())
    assert second.headers["idempotent-replayed"] == "true"
    assert anonymous.get("/jobs", headers=bearer(second.json()["key"])).status_code == 200
    assert len(client.get("/keys").json()["data"]) == 2
    with database.reading() as session:
        (row,) = session.scalars(select(Idempotency))
        assert first.json()["key"] not in str(row.body)
    check_problem(client.post("/keys", json={"name": "other"}, headers=once), 422, "idempotency_mismatch")
    elsewhere = bearer(first.json()["key"])
    check_problem(
        anonymous.post("/keys", json={"name": "laptop"}, headers={**once, **elsewhere}), 422, "idempotency_mismatch"
    )


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_concurrent_request_with_the_same_key_is_409_with_retry_after(client, database, tenant, monkeypatch):
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 1)
    arguments = {"json": {"name": "laptop"}, "headers": {"Idempotency-Key": "key-1"}}
    with database.writing() as twin:
        assert idempotency.find_response(twin, tenant, "key-1", "ab" * 32) is None
        answer = client.post("/keys", **arguments)
    check_problem(answer, 409, "idempotency_in_flight")
    assert answer.headers["retry-after"] == "1"
    assert client.post("/keys", **arguments).status_code == 201


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_database_contains_no_secret(client, database_url, key):
    secret = client.post("/keys", json={"name": "laptop"}, headers={"Idempotency-Key": "k"}).json()["key"]
    dump = "\n".join(sqlite3.connect(database_url.removeprefix("sqlite:///")).iterdump())
    assert "laptop" in dump
    assert secret not in dump
    assert key not in dump


@pytest.mark.parametrize("wrong", [{}, {"name": 3}, {"name": ""}, {"name": "a\tb"}, {"name": "x" * 201}])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_invalid_key_name_is_refused(client, wrong):
    assert get_pointers(check_problem(client.post("/keys", json=wrong), 422, "invalid_request")) == ["/name"]

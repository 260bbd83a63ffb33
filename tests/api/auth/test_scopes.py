"""Scopes: each route needs one, and a key gives at most its own."""

import re

import pytest

from api import schemas
from api.app import ROUTERS
from api.auth.scopes import find_scope
from service.keys import SCOPES
from tests.api.responses import check_body, check_problem, get_pointers

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
WITHOUT_A_KEY = {"/health/live", "/health/ready", "/docs", "/docs/{name}", "/", "/page/{name:path}", "/sessions"}
NEEDED = {
    ("POST", "/embed"): "embed",
    **dict.fromkeys([("POST", "/datasets"), ("DELETE", "/datasets/{dataset_id}")], "train"),
    **dict.fromkeys([("POST", "/jobs"), ("PATCH", "/jobs/{job_id}"), ("POST", "/models")], "train"),
    **{("POST", f"/jobs/{{job_id}}/{verb}"): "train" for verb in ("cancel", "pause", "resume", "retry", "clone")},
    **dict.fromkeys([("DELETE", "/jobs/{job_id}"), ("DELETE", "/models/{model_id}")], "train"),
    **dict.fromkeys([("PUT", "/aliases/{alias}"), ("DELETE", "/aliases/{alias}")], "train"),
    **dict.fromkeys([("POST", "/indexes"), ("DELETE", "/indexes/{index_id}")], "train"),
    **dict.fromkeys([("POST", "/sweeps"), ("DELETE", "/sweeps/{sweep_id}")], "train"),
    **{("POST", f"/sweeps/{{sweep_id}}/{verb}"): "train" for verb in ("pause", "resume", "cancel")},
    **dict.fromkeys([("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys/{key_id}"), ("GET", "/audit")], "admin"),
    ("POST", "/sessions/tokens"): "admin",
}
BODIES = {
    "/datasets": {"files": {"file": ("a.zip", b"bytes")}},
    "/models": {"files": {"file": ("a.pt", b"bytes")}},
    "/jobs": {"json": {"kind": "nothing", "dataset": "ds_x"}},
    "/embed": {"json": {"model": "mdl_x", "images": ["aGk="]}},
    "/indexes": {"json": {"job": "job_x"}},
    "/indexes/{index_id}/search": {"json": {"row": 0}},
    "/sweeps": {"json": {"dataset": "ds_x", "space": {"/seed": {"values": [1]}}}},
    "/keys": {"json": {"name": "laptop"}},
    "/aliases/{alias}": {"json": {"model": "mdl_x"}},
}

QUERIES = {"/jobs/compare": {"ids": "job_x"}, "/leaderboard": {"dataset": "ds_x"}}


def routes():
    return [(method, route) for router in ROUTERS for route in router.routes for method in route.methods]


def send(client, method, path):
    body = BODIES.get(path, {}) if method in ("POST", "PUT") else {}
    place = re.sub(r"[{}]", "", path.replace("{row}", "0"))
    return client.request(method, place, params=QUERIES.get(path), **body)


def test_every_route_names_the_scope_that_it_needs():
    found = {(method, route.path): find_scope(route.endpoint) for method, route in routes()}
    assert {path for (_, path), scope in found.items() if scope is None} == WITHOUT_A_KEY
    scopes = {call: scope for call, scope in found.items() if scope is not None}
    assert len(scopes) > 25
    assert {call: scope for call, scope in scopes.items() if scope != "read"} == NEEDED
    read = {call for call, scope in scopes.items() if scope == "read"} - {("POST", "/indexes/{index_id}/search")}
    assert {method for method, _ in read} == {"GET", "HEAD"}


@on_sqlite
def test_the_openapi_document_shows_the_scope_of_each_route(app):
    document = app.openapi()
    for method, route in routes():
        if not route.include_in_schema:
            continue
        operation = document["paths"][route.path][method.lower()]
        scope = find_scope(route.endpoint)
        if scope is None:
            assert "security" not in operation
        else:
            assert operation["security"] == [{"HTTPBearer": [scope]}], route.path
            assert operation["description"].endswith(f"Needs a key with the scope `{scope}`.")


@on_sqlite
def test_a_key_without_the_scope_is_refused_everywhere_and_with_it_nowhere(make_client, storage):
    with_one = {scope: make_client(scopes=[scope]) for scope in SCOPES}
    without = {scope: make_client(scopes=[other for other in SCOPES if other != scope]) for scope in SCOPES}
    calls = [(method, route.path, find_scope(route.endpoint)) for method, route in routes()]
    for method, path, scope in calls:
        if scope is not None and method == "HEAD":
            assert send(without[scope], method, path).status_code == 403
        elif scope is not None:
            problem = check_problem(send(without[scope], method, path), 403, f"{scope}_scope_needed")
            assert f"`{scope}`" in problem["detail"]
    assert list(storage.root.rglob("*.upload")) == []
    for method, path, scope in calls:
        if scope is not None:
            assert send(with_one[scope], method, path).status_code not in (401, 403), (method, path)


@on_sqlite
def test_a_request_without_the_scope_is_not_validated(make_client):
    client = make_client(scopes=["read"])
    check_problem(client.post("/jobs", json={"kind": 3}), 403, "train_scope_needed")
    check_problem(client.post("/keys", content=b"{"), 403, "admin_scope_needed")


def test_a_new_key_has_the_scopes_of_its_maker_or_fewer(client, make_client, anonymous):
    made = check_body(schemas.MadeKey, client.post("/keys", json={"name": "all"}), 201)
    assert (made["scopes"], made["expires_at"]) == (["read", "embed", "train", "admin"], None)
    few = check_body(schemas.MadeKey, client.post("/keys", json={"name": "few", "scopes": ["embed", "read"]}), 201)
    assert few["scopes"] == ["read", "embed"]
    bearer = {"Authorization": f"Bearer {few['key']}"}
    assert anonymous.get("/jobs", headers=bearer).status_code == 200
    check_problem(anonymous.get("/keys", headers=bearer), 403, "admin_scope_needed")
    listed = check_body(schemas.KeyList, client.get("/keys"))["data"]
    assert [key["scopes"] for key in listed[:2]] == [few["scopes"], made["scopes"]]
    limited = make_client(scopes=["read", "admin"])
    assert limited.post("/keys", json={"name": "same"}).json()["scopes"] == ["read", "admin"]
    for scopes in (["train"], ["read", "embed", "train", "admin"]):
        problem = check_problem(limited.post("/keys", json={"name": "more", "scopes": scopes}), 403, "scope_exceeded")
        assert get_pointers(problem) == ["/scopes"]
        assert "`train`" in problem["detail"]


@on_sqlite
@pytest.mark.parametrize(("scopes", "pointer"), [([], "/scopes"), (["write"], "/scopes/0"), ("read", "/scopes")])
def test_invalid_scopes_are_refused(client, scopes, pointer):
    answer = client.post("/keys", json={"name": "laptop", "scopes": scopes})
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == [pointer]

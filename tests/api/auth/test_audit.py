"""The audit trail: each change, refusal and download is recorded, with the key, its address and no secret."""

import re

import pytest
from sqlalchemy.exc import DBAPIError

from api import schemas
from api.app import ROUTERS
from service import audit
from service.audit import Actor
from service.db.session import clock
from ssl_core.files import write_artifact
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given
from tests.worker.indexes import embedded

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def read(client, **filters):
    return check_body(schemas.AuditList, client.get("/audit", params=filters))["data"]


def upload(client, path, **headers):
    return client.post(path, files={"file": ("a.bin", b"bytes")}, headers=headers).json()["id"]


def test_every_change_is_recorded_with_who_made_it(client, database, storage, tenant):
    ready = given.create_ready_dataset(database, tenant)
    dataset, imported = upload(client, "/datasets"), upload(client, "/models")
    job = client.post("/jobs", json={"dataset": ready, "config": given.PRETRAIN}).json()["id"]
    client.patch(f"/jobs/{job}", json={"name": "renamed"})
    for verb in ("pause", "resume", "cancel", "retry"):
        client.post(f"/jobs/{job}/{verb}")
    clone = client.post(f"/jobs/{job}/clone").json()["id"]
    client.post(f"/jobs/{job}/cancel")
    client.delete(f"/jobs/{job}")
    given.record_events(database, claim := given.claim_job(database), given.model())
    given.finish_job(database, claim)
    model = client.put("/aliases/prod", json={"model": clone}).json()["model"]
    client.delete("/aliases/prod")
    client.delete(f"/models/{clone}")
    embeddings = embedded.add_job(database, storage, tenant, embedded.draw(2))
    index = client.post("/indexes", json={"job": embeddings}).json()["id"]
    client.delete(f"/indexes/{index}")
    body = {"dataset": ready, "config": given.PRETRAIN, "space": {"/seed": {"values": [1, 2]}}}
    sweep = client.post("/sweeps", json=body).json()["id"]
    for verb in ("pause", "resume", "cancel"):
        client.post(f"/sweeps/{sweep}/{verb}")
    client.delete(f"/sweeps/{sweep}")
    client.delete(f"/datasets/{dataset}")
    made = client.post("/keys", json={"name": "laptop", "scopes": ["read"], "expires_in_days": 9}).json()
    client.delete(f"/keys/{made['id']}", headers={"X-Request-ID": "rotate-7"})
    entries = read(client, limit=100)
    assert [(entry["action"], entry["target"]) for entry in reversed(entries)] == [
        ("dataset.create", dataset),
        ("model.import", imported),
        ("job.submit", job),
        ("job.change", job),
        *((f"job.{verb}", job) for verb in ("pause", "resume", "cancel", "retry")),
        ("job.submit", clone),
        ("job.cancel", job),
        ("job.delete", job),
        ("alias.put", "prod"),
        ("alias.delete", "prod"),
        ("model.delete", model),
        ("index.create", index),
        ("index.delete", index),
        ("sweep.create", sweep),
        *((f"sweep.{verb}", sweep) for verb in ("pause", "resume", "cancel", "delete")),
        ("dataset.delete", dataset),
        ("key.create", made["id"]),
        ("key.revoke", made["id"]),
    ]
    own = next(key["id"] for key in client.get("/keys").json()["data"] if key["name"] == "test")
    assert {(entry["key"], entry["key_name"], entry["address"]) for entry in entries} == {(own, "test", "testclient")}
    assert entries[0]["request_id"] == "rotate-7"
    assert entries[1]["detail"] == {"name": "laptop", "scopes": ["read"], "expires_at": made["expires_at"]}
    assert made["key"] not in str(entries)


def test_routes_that_change_something_are_those_of_the_test_above():
    """POST /embed and a search change nothing; /sessions are in test_sessions.py."""
    changing = {
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
        if method not in ("GET", "HEAD")
    }
    assert changing - {("POST", "/embed"), ("POST", "/indexes/{index_id}/search")} == {
        ("POST", "/datasets"),
        ("DELETE", "/datasets/{dataset_id}"),
        ("POST", "/jobs"),
        ("PATCH", "/jobs/{job_id}"),
        *(("POST", f"/jobs/{{job_id}}/{verb}") for verb in ("cancel", "pause", "resume", "retry", "clone")),
        ("DELETE", "/jobs/{job_id}"),
        ("POST", "/models"),
        ("DELETE", "/models/{model_id}"),
        ("PUT", "/aliases/{alias}"),
        ("DELETE", "/aliases/{alias}"),
        ("POST", "/indexes"),
        ("DELETE", "/indexes/{index_id}"),
        ("POST", "/sweeps"),
        ("DELETE", "/sweeps/{sweep_id}"),
        *(("POST", f"/sweeps/{{sweep_id}}/{verb}") for verb in ("pause", "resume", "cancel")),
        ("POST", "/keys"),
        ("DELETE", "/keys/{key_id}"),
        ("POST", "/sessions"),
        ("POST", "/sessions/tokens"),
    }


@on_sqlite
def test_refused_and_repeated_requests_leave_no_entry(client, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    given.submit_job(database, tenant, dataset)
    check_problem(client.delete(f"/datasets/{dataset}"), 409, "dataset_in_use")
    check_problem(client.post("/jobs", json={"dataset": "ds_x", "config": given.PRETRAIN}), 404, "dataset_not_found")
    assert read(client) == []
    for _ in range(3):
        upload(client, "/datasets", **{"Idempotency-Key": "once"})
    assert [entry["action"] for entry in read(client)] == ["dataset.create"]


def test_an_entry_is_stored_with_the_change_or_not_at_all(client, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit RENAME TO audit_away")
    assert client.delete(f"/datasets/{dataset}").status_code >= 500
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_away RENAME TO audit")
    assert client.get(f"/datasets/{dataset}").status_code == 200
    assert read(client) == []


def test_entries_cannot_be_changed(client, database):
    upload(client, "/datasets")
    with pytest.raises(DBAPIError, match="not changed"), database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE audit SET key_name = 'another'")
    assert [entry["key_name"] for entry in read(client)] == ["test"]


def test_refused_keys_are_recorded_once_a_minute(app, client, make_client, database):
    with database.reading() as session:
        expired = make_client("old", expires_at=clock(session) - 1)
    narrow, revoked = make_client("narrow", scopes=["embed"]), make_client("lost")
    client.delete(f"/keys/{revoked.key_id}")
    for refused in (expired, narrow, revoked):
        for _ in range(5):
            refused.get(f"/jobs/job_{'0' * 26}")
    app.state.key_uses.store()
    entries = read(client, action="key.refuse")
    assert {entry["target"] == entry["key"] for entry in entries} == {True}
    route = "GET /jobs/{job_id}"
    assert sorted((entry["key_name"], entry["detail"]["code"], entry["detail"]["route"]) for entry in entries) == [
        ("lost", "wrong_key", route),
        ("narrow", "read_scope_needed", route),
        ("old", "expired_key", route),
    ]


@on_sqlite
def test_an_unknown_key_leaves_no_entry(app, anonymous, client):
    for number in range(5):
        anonymous.get("/jobs", headers={"Authorization": f"Bearer tv_{number}"})
    app.state.key_uses.store()
    assert read(client) == []


@on_sqlite
def test_downloads_are_recorded_once_a_minute_for_each_file(app, client, database, tenant, storage):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    claim = given.claim_job(database)
    folder = storage.attempt_dir(job, 1) / "model"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Gulls\n")
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    model = client.get(f"/jobs/{job}").json()["model_id"]
    assert client.head(f"/models/{model}/download", params={"file": "readme"}).status_code == 200
    app.state.key_uses.store()
    assert read(client) == []
    for _ in range(3):
        answer = client.get(f"/models/{model}/download", params={"file": "readme"}, headers={"Range": "bytes=0-3"})
        assert answer.status_code == 206
    check_problem(client.get(f"/models/{model}/download"), 409, "corrupt")
    app.state.key_uses.store()
    (entry,) = read(client)
    assert (entry["action"], entry["target"], entry["detail"]) == ("model.download", model, {"file": "readme"})


@on_sqlite
def test_a_download_of_an_artifact_is_recorded_with_its_job_and_name(app, client, other, database, tenant, storage):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    claim = given.claim_job(database)
    folder = storage.attempt_dir(job, 1)
    folder.mkdir(parents=True)
    for name in ("curves.png", "map.png", "gone.png"):
        file = write_artifact(folder, name, name.encode())
        given.record_events(database, claim, file)
    (folder / "gone.png").unlink()
    for name in ("curves.png", "curves.png", "map.png"):
        assert client.get(f"/jobs/{job}/artifacts/{name}").content == name.encode()
    check_problem(client.get(f"/jobs/{job}/artifacts/gone.png"), 404, "artifact_not_found")
    check_problem(other.get(f"/jobs/{job}/artifacts/map.png"), 404, "job_not_found")
    app.state.key_uses.store()
    entries = read(client, action="artifact.download")
    assert entries == read(client)
    # Two within a millisecond are in no order.
    found = sorted((entry["target"], entry["detail"]["name"]) for entry in entries)
    assert found == [(job, "curves.png"), (job, "map.png")]
    assert {(entry["key_name"], entry["address"]) for entry in entries} == {("test", "testclient")}
    assert read(other) == []


def test_the_trail_is_paged_and_filtered(client, make_client):
    another = make_client("another")
    made = [upload(client if number % 2 else another, "/datasets") for number in range(5)]
    client.delete(f"/datasets/{made[0]}")
    first = check_body(schemas.AuditList, client.get("/audit", params={"limit": 4}))
    second = check_body(schemas.AuditList, client.get("/audit", params={"limit": 4, "after": first["next"]}))
    assert (first["has_more"], second["has_more"]) == (True, False)
    everything = first["data"] + second["data"]
    assert everything == read(client)
    assert [entry["target"] for entry in everything[1:]] == made[::-1]
    assert [entry["target"] for entry in read(client, key=another.key_id)] == [made[4], made[2], made[0]]
    assert [entry["action"] for entry in read(client, action="dataset.delete")] == ["dataset.delete"]
    assert read(client, since=everything[2]["at"]) == everything[:3]
    assert read(client, since="2999-01-01T00:00:00Z") == []


@on_sqlite
@pytest.mark.parametrize(
    "wrong", [{"action": "key.steal"}, {"since": "yesterday"}, {"since": "0"}, {"after": "x"}, {"limit": 0}]
)
def test_an_invalid_filter_is_refused(client, wrong):
    assert get_pointers(check_problem(client.get("/audit", params=wrong), 422, "invalid_request")) == [*wrong]


def test_owners_see_their_own_entries(client, other):
    upload(client, "/datasets")
    assert (len(read(client)), read(other)) == (1, [])


def test_old_entries_are_deleted(database, tenant):
    with database.writing() as session:
        for days in (0, 29, 31, 400):
            audit.record(session, Actor(tenant), "key.create", f"key_{days}", seconds_ago=days * 86_400)
    with database.writing() as session:
        assert audit.delete_old(session, 30) == 2
    with database.reading() as session:
        assert {entry.target for entry in audit.list_(session, tenant).items} == {"key_0", "key_29"}


@on_sqlite
def test_the_address_and_the_request_id_of_a_client_are_bounded(database, tenant):
    with database.writing() as session:
        actor = Actor(tenant, address="x\0" * 500, request_id="y" * 500)
        audit.record(session, actor, "key.create", "key_1", secret="no")
        (entry,) = audit.list_(session, tenant).items
    assert (len(entry.address), len(entry.request_id)) == (64, 128)
    assert re.fullmatch("[^\0]+", entry.address)

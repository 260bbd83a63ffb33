"""Datasets over HTTP, on both databases; `test_uploads` tries the bodies."""

import hashlib

from api import schemas
from tests.api.responses import problem, shown
from tests.service import given

ARCHIVE = b"PK\x03\x04 any bytes: nobody opens them here"


def upload(client, content=ARCHIVE, **kwargs):
    return client.post("/datasets", files={"file": ("photos.zip", content)}, **kwargs)


def test_an_upload_is_accepted_hashed_and_stored_under_its_hash(client, tenant, storage, database):
    answer = upload(client, data={"name": "Holiday", "on_bad_file": "skip"})
    dataset = shown(schemas.Dataset, answer, 202)
    sha256 = hashlib.sha256(ARCHIVE).hexdigest()
    assert answer.headers["location"] == f"/datasets/{dataset['id']}"
    assert (dataset["name"], dataset["status"], dataset["on_bad_file"]) == ("Holiday", "validating", "skip")
    assert (dataset["sha256"], dataset["size_bytes"]) == (sha256, len(ARCHIVE))
    assert storage.upload_path(tenant, sha256).read_bytes() == ARCHIVE
    assert list(storage.tmp_dir.iterdir()) == []
    claim = given.claimed(database, "data")
    assert (claim.upload.sha256, claim.config["on_bad_file"]) == (sha256, "skip")


def test_a_dataset_is_called_like_its_file_unless_it_has_a_name(client):
    assert upload(client).json()["name"] == "photos.zip"


def test_bytes_that_are_ready_are_ready_at_once(client, database, tenant):
    first = given.ready(database, tenant, hashlib.sha256(ARCHIVE).hexdigest())
    second = upload(client).json()
    assert (second["status"], second["report"]["splits"]["train"]["images"]) == ("ready", 100)
    assert second["id"] != first


def test_datasets_are_listed_shown_and_forgotten(client, database, tenant):
    ready = given.ready(database, tenant)
    failing = upload(client).json()["id"]
    fault = {"code": "not_an_archive", "detail": "This is no archive.", "errors": []}
    given.finished(database, given.claimed(database, "data"), "failed", fault)
    page = shown(schemas.DatasetList, client.get("/datasets"))
    assert [(item["id"], item["status"]) for item in page["data"]] == [(failing, "failed"), (ready, "ready")]
    assert client.get(f"/datasets/{failing}").json()["error"] == fault
    assert [item["id"] for item in client.get("/datasets", params={"status": "ready"}).json()["data"]] == [ready]
    first = client.get("/datasets", params={"limit": 1}).json()
    assert client.get("/datasets", params={"after": first["next"]}).json()["data"][0]["id"] == ready
    gone = client.delete(f"/datasets/{ready}")
    assert (gone.status_code, gone.content) == (204, b"")
    problem(client.get(f"/datasets/{ready}"), 404, "dataset_not_found")
    problem(client.delete(f"/datasets/{ready}"), 404, "dataset_not_found")


def test_a_dataset_in_use_is_not_forgotten(client, database, tenant):
    dataset = given.ready(database, tenant)
    given.submitted(database, tenant, dataset)
    problem(client.delete(f"/datasets/{dataset}"), 409, "dataset_in_use")


def test_another_tenants_dataset_answers_like_a_missing_one(client, other, database, tenant):
    dataset = given.ready(database, tenant)
    problem(other.get(f"/datasets/{dataset}"), 404, "dataset_not_found")
    problem(other.delete(f"/datasets/{dataset}"), 404, "dataset_not_found")
    assert other.get("/datasets").json()["data"] == []
    assert client.get(f"/datasets/{dataset}").status_code == 200


def test_an_upload_that_is_sent_twice_under_one_key_is_made_once(client, database):
    once = {"Idempotency-Key": "upload-1"}
    first, second = upload(client, headers=once), upload(client, headers=once)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["location"] == first.headers["location"]
    assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
    assert len(client.get("/datasets").json()["data"]) == 1
    problem(upload(client, b"other bytes", headers=once), 422, "idempotency_mismatch")

"""Routes of /datasets, on both databases; `test_uploads` tests the bodies."""

import hashlib

from api import schemas
from tests.api.responses import check_body, check_problem
from tests.service import given

ARCHIVE = b"PK\x03\x04 any bytes: they are not opened here"


def upload(client, content=ARCHIVE, **kwargs):
    return client.post("/datasets", files={"file": ("photos.zip", content)}, **kwargs)


def test_upload_is_stored_under_its_sha256(client, tenant, storage, database):
    answer = upload(client, data={"name": "Holiday", "on_bad_file": "skip"})
    dataset = check_body(schemas.Dataset, answer, 202)
    sha256 = hashlib.sha256(ARCHIVE).hexdigest()
    assert answer.headers["location"] == f"/datasets/{dataset['id']}"
    assert (dataset["name"], dataset["status"], dataset["on_bad_file"]) == ("Holiday", "validating", "skip")
    assert (dataset["sha256"], dataset["size_bytes"]) == (sha256, len(ARCHIVE))
    assert storage.upload_path(tenant, sha256).read_bytes() == ARCHIVE
    assert list(storage.tmp_dir.iterdir()) == []
    claim = given.claim_job(database, "data")
    assert (claim.upload.sha256, claim.config["on_bad_file"]) == (sha256, "skip")


def test_default_name_is_the_filename(client):
    assert upload(client).json()["name"] == "photos.zip"


def test_duplicate_upload_is_ready_at_once(client, database, tenant):
    first = given.create_ready_dataset(database, tenant, hashlib.sha256(ARCHIVE).hexdigest())
    second = upload(client).json()
    assert (second["status"], second["report"]["splits"]["train"]["images"]) == ("ready", 100)
    assert second["id"] != first


def test_list_show_and_delete_datasets(client, database, tenant):
    ready = given.create_ready_dataset(database, tenant)
    failing = upload(client).json()["id"]
    fault = {"code": "not_an_archive", "detail": "This is no archive.", "errors": []}
    given.finish_job(database, given.claim_job(database, "data"), "failed", fault)
    page = check_body(schemas.DatasetList, client.get("/datasets"))
    assert [(item["id"], item["status"]) for item in page["data"]] == [(failing, "failed"), (ready, "ready")]
    assert client.get(f"/datasets/{failing}").json()["error"] == fault
    assert [item["id"] for item in client.get("/datasets", params={"status": "ready"}).json()["data"]] == [ready]
    first = client.get("/datasets", params={"limit": 1}).json()
    assert client.get("/datasets", params={"after": first["next"]}).json()["data"][0]["id"] == ready
    gone = client.delete(f"/datasets/{ready}")
    assert (gone.status_code, gone.content) == (204, b"")
    check_problem(client.get(f"/datasets/{ready}"), 404, "dataset_not_found")
    check_problem(client.delete(f"/datasets/{ready}"), 404, "dataset_not_found")


def test_dataset_in_use_is_not_deleted(client, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    given.submit_job(database, tenant, dataset)
    check_problem(client.delete(f"/datasets/{dataset}"), 409, "dataset_in_use")


def test_dataset_of_another_tenant_is_404(client, other, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    check_problem(other.get(f"/datasets/{dataset}"), 404, "dataset_not_found")
    check_problem(other.delete(f"/datasets/{dataset}"), 404, "dataset_not_found")
    assert other.get("/datasets").json()["data"] == []
    assert client.get(f"/datasets/{dataset}").status_code == 200


def test_upload_is_idempotent(client, database):
    once = {"Idempotency-Key": "upload-1"}
    first, second = upload(client, headers=once), upload(client, headers=once)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["location"] == first.headers["location"]
    assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
    assert len(client.get("/datasets").json()["data"]) == 1
    check_problem(upload(client, b"other bytes", headers=once), 422, "idempotency_mismatch")

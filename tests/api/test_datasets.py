"""Routes of /datasets, on both databases; `test_uploads` tests the bodies."""

import hashlib

import pytest

from api import schemas
from tests.api.responses import check_body, check_problem, get_pointers
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
    jobs = [given.submit_job(database, tenant, dataset).id for _ in range(2)]
    problem = check_problem(client.delete(f"/datasets/{dataset}"), 409, "dataset_in_use")
    assert get_pointers(problem) == [f"/jobs/{job}" for job in jobs]
    assert f"{jobs[0]}, which is queued, needs it" in problem["detail"]


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


def test_reading_options_are_checked_stored_and_part_of_what_makes_datasets_equal(client, database):
    options = {"strict": "true", "layout": "classes", "label_column": "breed", "pages": "images", "channels": "5"}
    made = upload(client, data=options | {"low": "-1024", "high": "3071.5"}).json()
    assert made["reading"] == {
        "strict": True,
        "layout": "classes",
        "label_column": "breed",
        "pages": "images",
        "channels": 5,
        "low": -1024.0,
        "high": 3071.5,
    }
    assert upload(client, data={"layout": "auto", "label_column": ""}).json()["reading"] == {}


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"strict": "maybe"}, "/strict"),
        ({"layout": "tree"}, "/layout"),
        ({"pages": "all"}, "/pages"),
        ({"channels": "17"}, "/channels"),
        ({"channels": "two"}, "/channels"),
        ({"low": "nan", "high": "2"}, "/low"),
        ({"low": "1"}, ""),
        ({"low": "2", "high": "1"}, ""),
        ({"label_column": "x" * 201}, "/label_column"),
    ],
)
def test_an_invalid_reading_option_is_refused_by_name(client, fields, pointer):
    problem = check_problem(upload(client, data=fields), 422, "invalid_request")
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]

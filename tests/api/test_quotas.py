"""Quotas of an owner, and the route of /usage."""

import hashlib
import time

import pytest
from fastapi import FastAPI

from api import schemas
from api.app import create
from api.request_rate import RequestCount, RequestRate
from service.errors import RequestQuotaExceeded
from service.quotas import usage
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given

QUOTAS = {"quota_queued_jobs": 2, "quota_running_jobs": 1, "quota_bytes": 5000, "quota_requests_per_minute": 0}


@pytest.fixture
def quotas() -> dict[str, int]:
    return QUOTAS


@pytest.fixture
def app(settings, quotas) -> FastAPI:
    return create(settings.model_copy(update=quotas))


def submit(client, dataset, **options):
    return client.post("/jobs", json={"dataset": dataset, "config": given.PRETRAIN}, **options)


def upload(client, size, content=b"x", **options):
    return client.post("/datasets", files={"file": ("a.zip", content * size)}, **options)


def test_jobs_above_the_quota_are_refused_until_others_have_ended(client, other, database, tenant, stranger):
    dataset = given.create_ready_dataset(database, tenant)
    idempotent = {"headers": {"Idempotency-Key": "one"}}
    first = submit(client, dataset, **idempotent).json()
    assert submit(client, dataset).status_code == 202
    body = check_problem(submit(client, dataset), 409, "job_quota_exceeded")
    assert body["detail"] == "2 jobs of training and evaluation are queued; at most 2 are allowed."
    assert get_pointers(body) == ["queued_jobs"]
    assert submit(client, dataset, **idempotent).json()["id"] == first["id"]
    assert submit(other, given.create_ready_dataset(database, stranger)).status_code == 202
    client.post(f"/jobs/{first['id']}/cancel")
    assert submit(client, dataset).status_code == 202


def test_uploads_above_the_quota_of_queued_jobs_are_refused(client, storage):
    assert [upload(client, 1, content).status_code for content in (b"a", b"b")] == [202, 202]
    check_problem(upload(client, 1, b"c"), 409, "job_quota_exceeded")
    weights = client.post("/models", files={"file": ("a.pt", b"weights")})
    check_problem(weights, 409, "job_quota_exceeded")
    assert sorted(path.read_bytes() for path in storage.root.rglob("*") if path.is_file()) == [b"a", b"b"]


def test_uploads_and_jobs_above_the_quota_of_bytes_are_refused(client, storage, tenant, database):
    dataset = given.create_ready_dataset(database, tenant)  # of 1,000 bytes
    idempotent = {"headers": {"Idempotency-Key": "one"}}
    first = upload(client, 4000, **idempotent).json()
    assert upload(client, 4000, **idempotent).json()["id"] == first["id"]
    for sent in (upload(client, 1, b"y"), submit(client, dataset), upload(client, 100_000, b"z")):
        body = check_problem(sent, 409, "storage_quota_exceeded")
        assert body["detail"] == "5,000 bytes are stored, and this does not fit: at most 5,000 are allowed."
        assert get_pointers(body) == ["bytes"]
    refused = hashlib.sha256(b"y").hexdigest()
    assert not storage.upload_path(tenant, refused).exists()
    client.delete(f"/datasets/{dataset}")
    assert upload(client, 1, b"y").status_code == 202


@pytest.mark.parametrize("quotas", [{"quota_requests_per_minute": 3}])
def test_requests_above_the_quota_of_a_minute_are_429_for_their_owner_alone(client, other):
    assert [client.get(path).status_code for path in ("/jobs", "/jobs/job_x", "/usage")] == [200, 404, 200]
    for path in ("/usage", "/jobs"):
        answer = client.get(path)
        body = check_problem(answer, 429, "request_quota_exceeded")
        assert get_pointers(body) == ["requests_per_minute"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    check_problem(upload(client, 1), 429, "request_quota_exceeded")
    assert check_body(schemas.Usage, other.get("/usage"))["requests_per_minute"] == {"used": 1, "allowed": 3}
    assert upload(other, 1).status_code == 202
    assert other.get("/usage").json()["requests_per_minute"]["used"] == 3  # an upload is one request


def test_usage_counts_jobs_and_bytes_of_the_owner(client, other, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    parent = submit(client, dataset).json()["id"]
    given.submit_job(database, tenant, dataset, model=parent)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.checkpoint(1), given.checkpoint(2), given.model())
    upload(client, 70)
    found = check_body(schemas.Usage, client.get("/usage"))
    assert found["jobs"] == {"queued": {"used": 1, "allowed": 2}, "running": {"used": 1, "allowed": 1}}
    assert found["uploads"]["queued"] == {"used": 1, "allowed": 2}
    of = {"uploads": 70, "datasets": 1000, "models": 10, "checkpoints": 20, "artifacts": 0, "indexes": 0}
    assert found["bytes"] == {"used": 1100, "allowed": 5000, "of": of}
    assert found["requests_per_minute"] == {"used": 3, "allowed": None}
    assert other.get("/usage").json()["bytes"]["used"] == 0


def test_files_that_datasets_share_count_once_with_their_packed_size(database, tenant):
    given.create_dataset(database, tenant)
    claim = given.claim_job(database, "data")
    given.record_events(database, claim, given.events.Result({**given.report(), "size_bytes": 3 * 2**31}))
    given.finish_job(database, claim)
    given.create_dataset(database, tenant)
    with database.reading() as session:
        assert usage.measure_bytes(session, tenant).datasets == 3 * 2**31


def test_counts_are_dropped_after_a_minute(monkeypatch):
    rate = RequestRate(1)
    rate.add("ten_x")
    with pytest.raises(RequestQuotaExceeded) as caught:
        rate.add("ten_x")
    elapsed = time.monotonic() + caught.value.retry_after
    monkeypatch.setattr(time, "monotonic", lambda: elapsed)
    assert rate.count("ten_x") == RequestCount(0, 1)
    rate.add("ten_x")

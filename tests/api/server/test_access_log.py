"""The access log: one record for each request, and which requests it leaves out."""

import logging

import pytest

from api.server import access_log
from tests import logs
from tests.service import given

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def records():
    """What was logged about requests since the fixture was asked for."""
    with logs.captured() as every:
        yield every


def of_requests(records):
    return [record for record in records if record["logger"] == "api.access"]


def test_a_request_is_one_record_with_its_route_client_owner_and_id(client, database, tenant, records):
    dataset = given.create_ready_dataset(database, tenant)
    job = given.submit_job(database, tenant, dataset).id
    answer = client.get(f"/jobs/{job}?ignored=", headers={"X-Request-ID": "mine-1"})
    assert answer.status_code == 422
    answer = client.get(f"/jobs/{job}", headers={"X-Request-ID": "mine-2"})
    refused, shown = of_requests(records)
    assert (refused["status"], refused["path"], refused["request"]) == (422, f"/jobs/{job}", "mine-1")
    assert 0 < shown.pop("duration_ms") < 60_000
    del shown["time"]
    assert shown == {
        "level": "INFO",
        "logger": "api.access",
        "message": f"GET /jobs/{job} 200",
        "method": "GET",
        "path": f"/jobs/{job}",
        "route": "/jobs/{job_id}",
        "status": 200,
        "bytes": len(answer.content),
        "client": "testclient",
        "request": answer.headers["x-request-id"],
        "owner": tenant,
    }


@on_sqlite
def test_a_request_without_a_valid_key_has_no_owner_and_its_key_is_not_logged(anonymous, records):
    key = "tv_" + "x" * 43
    body = anonymous.get("/keys", headers={"Authorization": f"Bearer {key}", "X-Request-ID": key}).json()
    anonymous.get(f"/{key}?key={key}")
    wrong, unknown = of_requests(records)
    assert (wrong["status"], wrong["bytes"] > 0, "owner" in wrong) == (401, True, False)
    assert body["request_id"] == key
    assert (unknown["status"], unknown["route"], unknown["path"]) == (404, None, "/[secret]")
    assert key not in str(records)


@on_sqlite
def test_health_is_logged_at_level_debug_only(anonymous):
    with logs.captured() as records:
        anonymous.get("/health/live")
    assert of_requests(records) == []
    with logs.captured(level=logging.DEBUG) as records:
        anonymous.get("/health/live")
    assert [record["level"] for record in of_requests(records)] == ["DEBUG"]


@on_sqlite
def test_the_access_log_can_be_switched_off(anonymous, records):
    access_log.set_enabled(False)
    try:
        anonymous.get("/keys")
        assert of_requests(records) == []
    finally:
        access_log.set_enabled(True)
    anonymous.get("/keys")
    assert len(of_requests(records)) == 1

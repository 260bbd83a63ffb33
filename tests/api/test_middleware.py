"""Middleware and JSON requests: request ids, problems, invalid bodies, the doorbell."""

import json

import pytest
from fastapi import APIRouter
from sqlalchemy import event, text

from service import jobs
from tests import logs
from tests.api.responses import check_problem, get_pointers
from tests.service import given

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
JSON = {"Content-Type": "application/json"}


def test_request_id_is_echoed_or_generated(anonymous):
    assert anonymous.get("/health/live", headers={"X-Request-ID": "trace-1"}).headers["x-request-id"] == "trace-1"
    assert (
        check_problem(anonymous.get("/nowhere", headers={"X-Request-ID": "a"}), 404, "not_found")["request_id"] == "a"
    )
    for bad in (None, "", "x" * 129, "two words", "möwe".encode("latin-1")):
        headers = {} if bad is None else {"X-Request-ID": bad}
        assert anonymous.get("/health/live", headers=headers).headers["x-request-id"].startswith("req_")


def test_unknown_path_is_404_and_wrong_method_is_405(client):
    for place in (
        "/nowhere",
        "/page/nothing.js",
        "/jobs/",
        "/jobs/x/y/z",
        "/%2Fjobs",
        "/jobs/job_1/metrics/lines",
        "/jobs/x/rewind",
    ):
        check_problem(client.get(place), 404, "not_found")
    for place, method, allowed in (
        ("/jobs", "PUT", "GET, POST"),
        ("/datasets/ds_1", "PATCH", "DELETE, GET"),
        ("/jobs/job_1/cancel", "GET", "POST"),
        ("/health/live", "POST", "GET"),
    ):
        answer = client.request(method, place)
        check_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed


UNREADABLE = {
    "nothing": (b"", 422, "invalid_request"),
    "not JSON": (b"{", 400, "bad_request"),
    "two values": (b"{} {}", 400, "bad_request"),
    "NaN": (b'{"priority": NaN}', 400, "bad_request"),
    "infinity": (b'{"priority": -Infinity}', 400, "bad_request"),
    "a number that is too large to be one": (b'{"priority": 1e999}', 400, "bad_request"),
    "an endless integer": (b'{"priority": ' + b"9" * 5000 + b"}", 400, "bad_request"),
    "a NUL in a text": (b'{"name": "a\\u0000b"}', 400, "bad_request"),
    "a NUL in a name": (b'{"config": {"a\\u0000": 1}}', 400, "bad_request"),
    "a bare NUL": (b'{"name": "a\0b"}', 400, "bad_request"),
    "a lone surrogate": (b'{"name": "\\ud800"}', 400, "bad_request"),
    "bytes that are no text": (b'{"name": "\xff"}', 400, "bad_request"),
    "a deep nest": (b'{"config": ' + b"[" * 33 + b"]" * 33 + b"}", 400, "bad_request"),
    "a bottomless nest": (b"[" * 100_000 + b"]" * 100_000, 413, "too_large"),
    "nested objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 413, "too_large"),
    "a list": (b"[]", 422, "invalid_request"),
    "null": (b"null", 422, "invalid_request"),
    "a text": (b'"job"', 422, "invalid_request"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_body_is_a_client_error(client, case):
    body, status, code = UNREADABLE[case]
    for place in ("/jobs", "/keys"):
        check_problem(client.post(place, content=body, headers=JSON), status, code)


def test_body_must_have_json_content_type(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "\xe9"):
        headers = {"Content-Type": kind.encode("latin-1")}
        check_problem(client.post("/keys", content=b'{"name":"x"}', headers=headers), 415, "unsupported_media")
    check_problem(client.post("/keys", content=b'{"name":"x"}'), 415, "unsupported_media")
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"):
        assert client.post("/keys", content=b'{"name":"x"}', headers={"Content-Type": kind}).status_code == 201


def test_too_large_body_is_413_with_and_without_content_length(client, settings):
    large = b'{"name": "' + b"x" * settings.max_body_bytes + b'"}'
    check_problem(client.post("/keys", content=large, headers=JSON), 413, "too_large")
    check_problem(client.post("/keys", content=iter([large[:1000], large[1000:]]), headers=JSON), 413, "too_large")
    for length in ("9" * 30, "9" * 5000):
        check_problem(client.post("/keys", content=b"", headers={**JSON, "Content-Length": length}), 413, "too_large")


def test_nul_in_url_is_refused(client):
    for place in ("/jobs/%00", "/jobs?status=a%00b", "/jobs/job_1/metrics?names=%00", "/models/a%00/download"):
        check_problem(client.get(place), 400, "bad_request")


def test_parameters_out_of_range_have_pointers(client):
    for place, name in (
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=101", "limit"),
        ("/jobs?limit=" + "9" * 5000, "limit"),
        ("/jobs?status=" + "x" * 65, "status"),
        ("/datasets?limit=x", "limit"),
        ("/jobs/job_1/events?after=-1", "after"),
    ):
        assert get_pointers(check_problem(client.get(place), 422, "invalid_request")) == [name]
    headers = {"Idempotency-Key": "x" * 256}
    body = check_problem(client.post("/keys", json={"name": "x"}, headers=headers), 422, "invalid_request")
    assert get_pointers(body) == ["idempotency-key"]


def test_unknown_parameter_is_refused_with_a_suggestion(client):
    body = check_problem(client.get("/jobs?stauts=running&limit=5"), 422, "invalid_request")
    assert get_pointers(body) == ["stauts"]
    assert "did you mean `status`?" in body["detail"]
    check_problem(client.get("/recipes?" + "&".join(f"p{n}=1" for n in range(5000))), 422, "invalid_request")
    check_problem(client.post("/jobs?dry_run=1", json={}), 422, "invalid_request")
    assert client.get("/health/live?probe=1").is_success
    assert client.get("/methods?limit=100").is_success


def test_unhandled_exception_is_a_problem_with_request_id(app, anonymous):
    router = APIRouter()

    @router.get("/broken")
    def broken():
        raise RuntimeError("secret detail")

    app.include_router(router)
    with logs.captured() as records:
        body = check_problem(anonymous.get("/broken"), 500, "internal_error")
    assert "secret" not in json.dumps(body)
    error, access = (record for record in records if record["logger"].startswith("api."))
    assert (error["message"], error["request"]) == ("GET /broken failed", body["request_id"])
    assert "secret detail" in error["traceback"]
    assert (access["route"], access["status"], access["request"]) == ("/broken", 500, body["request_id"])


def test_locked_database_is_503(app, client, database, tenant):
    event.listen(app.state.database.engine, "connect", lambda raw, record: raw.execute("PRAGMA busy_timeout=20"))
    app.state.database.engine.dispose()
    with database.writing() as session:
        session.execute(text("SELECT 1"))  # BEGIN IMMEDIATE: takes the write lock
        answer = client.post("/keys", json={"name": "x"})
        check_problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/keys").status_code == 200  # readers do not wait
    assert client.post("/keys", json={"name": "x"}).status_code == 201


def test_failed_commit_is_503_and_does_not_ring(app, client, database, tenant, monkeypatch):
    dataset, rung = given.create_ready_dataset(database, tenant), []
    monkeypatch.setattr(app.state.doorbell, "ring", rung.append)
    body = {"dataset": dataset, "config": given.PRETRAIN}

    def fail(connection):
        from sqlite3 import OperationalError as Raw

        from sqlalchemy.exc import OperationalError

        raise OperationalError("COMMIT", {}, Raw("disk I/O error"))

    event.listen(app.state.database.engine, "commit", fail)
    check_problem(client.post("/jobs", json=body), 503, "unavailable")
    event.remove(app.state.database.engine, "commit", fail)
    assert (rung, client.get("/jobs").json()["data"]) == ([], [])
    assert client.post("/jobs", json=body).status_code == 202
    assert rung == ["train"]


def test_doorbell_rings_after_the_commit(app, client, database, tenant, monkeypatch):
    dataset, seen = given.create_ready_dataset(database, tenant), []

    def look(queue):
        with database.reading() as session:
            seen.append((queue, len(jobs.list_(session, tenant).items)))

    monkeypatch.setattr(app.state.doorbell, "ring", look)
    client.post("/jobs", json={"dataset": dataset, "config": given.PRETRAIN})
    assert seen == [("train", 1)]


def test_refused_request_does_not_ring(app, client, database, tenant, monkeypatch):
    monkeypatch.setattr(app.state.doorbell, "ring", lambda queue: pytest.fail("rang"))
    check_problem(client.post("/jobs", json={"dataset": "ds_none", "config": given.PRETRAIN}), 404, "dataset_not_found")

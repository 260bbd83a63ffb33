"""The HTTP transport: retries, errors and pagination."""

from contextlib import closing

import pytest

from tests.twoviews.scripted import Response
from twoviews import ApiError, CannotReach
from twoviews.credentials import Credentials
from twoviews.transport import Transport

PROBLEM = {
    "type": "about:blank",
    "title": "Unprocessable",
    "status": 422,
    "detail": "The config is not one that can run.",
    "code": "invalid_config",
    "request_id": "req_1",
    "errors": [{"pointer": "/config/epochz", "code": "extra_forbidden", "detail": "Did you mean `epochs`?"}],
}


def test_every_request_carries_the_key(script, transport):
    script.responses = [Response(body={"ok": True})]
    assert transport.get("/x") == {"ok": True}
    assert script.requests[0].headers["Authorization"] == "Bearer tv_secret"


def test_loopback_uses_no_proxy(script, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    script.responses = [Response(body=7)]
    with closing(Transport(Credentials(script.url, "tv_secret"), retries=0)) as transport:
        assert transport.get("/x") == 7


@pytest.mark.parametrize("status", [429, 502, 503, 504, 0])
def test_a_get_is_retried_after_a_transient_error(script, transport, status):
    script.responses = [Response(status, {}), Response(status, {}), Response(body=7)]
    assert transport.get("/x") == 7
    assert len(script.requests) == 3


def test_a_retried_post_keeps_its_idempotency_key(script, transport):
    script.responses = [Response(0), Response(503, {}), Response(202, {"id": "job_1"}), Response(202, {"id": "job_2"})]
    transport.create("/jobs", json={"a": 1})
    transport.create("/jobs", json={"a": 1})
    sent = [request.headers["Idempotency-Key"] for request in script.requests]
    assert sent[0] == sent[1] == sent[2] != sent[3]
    assert {request.body for request in script.requests} == {b'{"a":1}'}


def test_a_post_in_flight_is_retried(script, transport):
    script.responses = [Response(409, PROBLEM | {"code": "idempotency_in_flight"}), Response(202, {"id": "job_1"})]
    assert transport.create("/jobs", json={}) == {"id": "job_1"}


def test_an_unsafe_request_is_not_retried(script, transport):
    script.responses = [Response(0), Response(204)]
    with pytest.raises(CannotReach):
        transport.send("DELETE", "/datasets/ds_1", safe=False)
    assert len(script.requests) == 1


def test_a_rejected_request_is_not_retried_and_raises_its_faults(script, transport):
    script.responses = [Response(422, PROBLEM)]
    with pytest.raises(ApiError, match="not one that can run") as caught:
        transport.get("/x")
    error = caught.value
    assert (error.status, error.code, error.request_id) == (422, "invalid_config", "req_1")
    assert error.errors[0]["pointer"] == "/config/epochz"


def test_a_response_without_a_problem_raises_its_status(script, transport):
    script.responses = [Response(500, b"<html>oops</html>", {"X-Request-ID": "req_9"})]
    with pytest.raises(ApiError, match="500 Internal Server Error") as caught:
        transport.get("/x")
    assert caught.value.code == "unreadable_answer"
    assert caught.value.request_id == "req_9"


def test_the_last_error_is_raised_after_all_retries(script, transport):
    script.responses = [Response(503, PROBLEM | {"status": 503, "code": "encoder_busy"})] * 4
    with pytest.raises(ApiError) as caught:
        transport.get("/x")
    assert caught.value.code == "encoder_busy"
    assert script.responses == []


def test_the_pause_is_retry_after_up_to_a_maximum(transport):
    assert transport._pause(0, "2") == 2
    assert transport._pause(0, "86400") == 30
    assert 0 < transport._pause(0) <= 0.001 < transport._pause(2) <= 0.004


def test_an_absent_service_raises_cannot_reach():
    transport = Transport(Credentials("http://127.0.0.1:9", "k"), retries=0)
    with pytest.raises(CannotReach, match=r"http://127\.0\.0\.1:9 does not answer"):
        transport.get("/x")
    transport.close()


def test_pages_are_fetched_on_demand(script, transport):
    script.responses = [
        Response(body={"data": [1, 2], "has_more": True, "next": "b"}),
        Response(body={"data": [3], "has_more": False, "next": None}),
    ]
    pages = transport.pages("/things", status="ready", kind=None)
    assert next(pages) == 1
    assert len(script.requests) == 1
    assert list(pages) == [2, 3]
    first = "/things?limit=100&status=ready"
    assert [request.path for request in script.requests] == [first, f"{first}&after=b"]


@pytest.mark.parametrize("url", ["http://[::", "nonsense", "ftp://here", "http://"])
def test_an_invalid_url_raises(url):
    with pytest.raises(ValueError, match="is not a valid URL"):
        Transport(Credentials(url, "tv_secret"))


@pytest.mark.parametrize("key", ["tv_sec\nret", "ключ"])
def test_a_key_that_no_header_can_hold_raises_without_the_key(key):
    with pytest.raises(ValueError, match="The key holds") as caught:
        Transport(Credentials("http://here", key))
    assert key not in str(caught.value)


def build_stream(*messages):
    text = "retry: 1\n\n: keep-alive\n\n" + "".join(f"event: {name}\nid: {n}\ndata: {{}}\n\n" for name, n in messages)
    return Response(200, text.encode(), {"Content-Type": "text/event-stream"})


def test_a_stream_that_ends_early_is_opened_again_behind_its_last_message(script, transport):
    script.responses = [
        build_stream(("metrics", 3), ("metrics", 5)),
        Response(0),
        Response(503, {}),
        build_stream(),
        build_stream(("metrics", 8), ("done", 8)),
    ]
    found = [(message.event, message.id) for message in transport.messages("/jobs/job_1/metrics/stream", names="a")]
    assert found == [("metrics", "3"), ("metrics", "5"), ("metrics", "8"), ("done", "8")]
    assert [request.headers.get("Last-Event-ID") for request in script.requests] == [None, "5", "5", "5", "5"]
    assert {request.path for request in script.requests} == {"/jobs/job_1/metrics/stream?names=a"}


def test_a_stream_that_cannot_be_opened_raises(script, transport):
    script.responses = [build_stream(("event", 1)), *[Response(0)] * 4]
    messages = transport.messages("/jobs/job_1/events/stream")
    assert next(messages).id == "1"
    with pytest.raises(CannotReach):
        next(messages)
    script.responses = [Response(401, {"code": "wrong_key", "detail": "The key is wrong."})]
    with pytest.raises(ApiError, match="The key is wrong"):
        next(transport.messages("/jobs/job_1/events/stream"))

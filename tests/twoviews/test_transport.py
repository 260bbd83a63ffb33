"""The transport: what is sent again, what is not, and how a refusal is told."""

from contextlib import closing

import pytest

from tests.twoviews.scripted import Answer
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
    script.answers = [Answer(body={"ok": True})]
    assert transport.get("/x") == {"ok": True}
    assert script.asked[0].headers["Authorization"] == "Bearer tv_secret"


def test_no_proxy_is_asked_the_way_to_this_machine(script, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    script.answers = [Answer(body=7)]
    with closing(Transport(Credentials(script.url, "tv_secret"), retries=0)) as transport:
        assert transport.get("/x") == 7


@pytest.mark.parametrize("status", [429, 502, 503, 504, 0])
def test_a_get_is_sent_again_after_a_passing_fault(script, transport, status):
    script.answers = [Answer(status, {}), Answer(status, {}), Answer(body=7)]
    assert transport.get("/x") == 7
    assert len(script.asked) == 3


def test_a_creating_post_keeps_its_idempotency_key_however_often_it_is_sent(script, transport):
    script.answers = [Answer(0), Answer(503, {}), Answer(202, {"id": "job_1"}), Answer(202, {"id": "job_2"})]
    transport.create("/jobs", json={"a": 1})
    transport.create("/jobs", json={"a": 1})
    sent = [asked.headers["Idempotency-Key"] for asked in script.asked]
    assert sent[0] == sent[1] == sent[2] != sent[3]
    assert {asked.body for asked in script.asked} == {b'{"a":1}'}


def test_a_post_that_is_still_being_answered_is_asked_for_again(script, transport):
    script.answers = [Answer(409, PROBLEM | {"code": "idempotency_in_flight"}), Answer(202, {"id": "job_1"})]
    assert transport.create("/jobs", json={}) == {"id": "job_1"}


def test_an_unsafe_request_is_sent_once(script, transport):
    script.answers = [Answer(0), Answer(204)]
    with pytest.raises(CannotReach):
        transport.send("DELETE", "/datasets/ds_1", safe=False)
    assert len(script.asked) == 1


def test_a_refusal_is_not_sent_again_and_tells_its_faults(script, transport):
    script.answers = [Answer(422, PROBLEM)]
    with pytest.raises(ApiError, match="not one that can run") as caught:
        transport.get("/x")
    error = caught.value
    assert (error.status, error.code, error.request_id) == (422, "invalid_config", "req_1")
    assert error.errors[0]["pointer"] == "/config/epochz"


def test_an_answer_that_is_no_problem_document_is_told_by_its_status(script, transport):
    script.answers = [Answer(500, b"<html>oops</html>", {"X-Request-ID": "req_9"})]
    with pytest.raises(ApiError, match="500 Internal Server Error") as caught:
        transport.get("/x")
    assert caught.value.code == "unreadable_answer"
    assert caught.value.request_id == "req_9"


def test_retries_end_and_the_last_refusal_is_raised(script, transport):
    script.answers = [Answer(503, PROBLEM | {"status": 503, "code": "encoder_busy"})] * 4
    with pytest.raises(ApiError) as caught:
        transport.get("/x")
    assert caught.value.code == "encoder_busy"
    assert script.answers == []


def test_the_pause_is_what_the_service_asked_for_within_reason(transport):
    assert transport._pause(0, "2") == 2
    assert transport._pause(0, "86400") == 30
    assert 0 < transport._pause(0) <= 0.001 < transport._pause(2) <= 0.004


def test_nobody_there_is_a_sentence():
    transport = Transport(Credentials("http://127.0.0.1:9", "k"), retries=0)
    with pytest.raises(CannotReach, match=r"http://127\.0\.0\.1:9 does not answer"):
        transport.get("/x")
    transport.close()


def test_pages_are_followed_to_the_end_and_fetched_as_needed(script, transport):
    script.answers = [
        Answer(body={"data": [1, 2], "has_more": True, "next": "b"}),
        Answer(body={"data": [3], "has_more": False, "next": None}),
    ]
    pages = transport.pages("/things", status="ready", kind=None)
    assert next(pages) == 1
    assert len(script.asked) == 1
    assert list(pages) == [2, 3]
    first = "/things?limit=100&status=ready"
    assert [asked.path for asked in script.asked] == [first, f"{first}&after=b"]


@pytest.mark.parametrize("url", ["http://[::", "nonsense", "ftp://here", "http://"])
def test_an_address_that_is_none_is_told_in_a_sentence(url):
    with pytest.raises(ValueError, match="is not an address"):
        Transport(Credentials(url, "tv_secret"))


@pytest.mark.parametrize("key", ["tv_sec\nret", "ключ"])
def test_a_key_that_no_header_holds_is_refused_and_not_repeated(key):
    with pytest.raises(ValueError, match="The key holds") as caught:
        Transport(Credentials("http://here", key))
    assert key not in str(caught.value)

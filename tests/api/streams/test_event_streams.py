"""Streams of a live server: metrics and events while they are written, resumed, replayed, and ended."""

import json
import signal
from contextlib import contextmanager

import pytest
from httpx_sse import EventSource

from api.schemas import Event, Metrics
from service import keys
from tests.api.responses import check_problem, get_pointers
from tests.processes import soon
from tests.service import given
from twoviews import Client

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@contextmanager
def streaming(server, path, last_event_id=None, **params):
    """Open a stream; yield the iterator of its messages."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with server.client.stream("GET", path, params=params, headers=headers) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        yield (message for message in EventSource(response).iter_sse() if message.data)


def read_all(server, path, last_event_id=None, **params):
    with streaming(server, path, last_event_id, **params) as messages:
        return list(messages)


def collect(messages):
    """Return the (name, step, value) of the points of `metrics` messages."""
    found = []
    for message in messages:
        columns = Metrics.model_validate_json(message.data)
        assert (message.event, message.id) == ("metrics", str(columns.last))
        for series in columns.series:
            found += [(series.name, step, value) for step, value in zip(series.step, series.value, strict=True)]
    return found


def test_points_are_streamed_while_they_are_written_and_the_end_of_the_job_closes_the_stream(
    server, database, job, claim
):
    given.record_events(database, claim, given.metrics(0, loss=1.0, lr=None))
    with streaming(server, f"/jobs/{job}/metrics/stream") as messages:
        assert collect([next(messages)]) == [("loss", 0, 1.0), ("lr", 0, None)]
        for step in (1, 2):
            given.record_events(database, claim, given.metrics(step, loss=float(step)))
            message = next(messages)
            assert collect([message]) == [("loss", step, float(step))]
        given.record_events(database, claim, given.metrics(3, loss=3.0))
        given.finish_job(database, claim, "failed", {"code": "diverged", "detail": "The loss is not finite."})
        rest = list(messages)
    assert collect(rest[:-1]) == [("loss", 3, 3.0)]
    assert (rest[-1].event, rest[-1].id) == ("done", "5")
    assert json.loads(rest[-1].data) == {"id": job, "status": "failed"}


def test_events_are_streamed_one_a_message(server, database, job, claim):
    path = f"/jobs/{job}/events/stream"
    with streaming(server, path) as messages:
        first = [next(messages) for _ in range(2)]
        given.finish_job(database, claim)
        rest = list(messages)
    assert [message.event for message in (*first, *rest)] == ["event", "event", "event", "done"]
    events = [Event.model_validate_json(message.data).model_dump() for message in (*first, *rest[:-1])]
    assert [message.id for message in (*first, *rest[:-1])] == ["1", "2", "3"]
    listed = server.client.get(f"/jobs/{job}/events").json()["data"]
    assert [Event.model_validate(event).model_dump() for event in listed] == events
    assert [message.event for message in read_all(server, path, "2")] == ["event", "done"]
    assert [message.event for message in read_all(server, path, after=3)] == ["done"]


def test_a_stream_that_breaks_at_any_message_is_resumed_without_loss_or_doubling(server, database, job, claim):
    path, found, cursor = f"/jobs/{job}/metrics/stream", [], None
    for step in range(6):
        given.record_events(database, claim, given.metrics(step, loss=float(step), lr=0.1))
        with streaming(server, path, cursor, after=1 if cursor else 0) as messages:  # the header takes precedence
            message = next(messages)
        found += collect([message])
        cursor = message.id
    assert sorted(found) == sorted(
        [("loss", step, float(step)) for step in range(6)] + [("lr", step, 0.1) for step in range(6)]
    )


@on_sqlite
def test_an_ended_job_is_replayed_in_pages(server, database, job, claim):
    given.record_events(database, claim, *(given.metrics(step, loss=float(step), lr=0.1) for step in range(2500)))
    given.record_events(database, claim, given.metrics(2500, rare=0.5))
    given.finish_job(database, claim)
    *pages, done = read_all(server, f"/jobs/{job}/metrics/stream")
    assert [page.id for page in pages] == ["2000", "4000", "5001"]
    assert done.event == "done"
    points = collect(pages)
    assert [point for point in points if point[0] == "loss"] == [("loss", step, float(step)) for step in range(2500)]
    assert len(points) == 5001
    filtered = read_all(server, f"/jobs/{job}/metrics/stream", names="rare")
    assert collect(filtered[:-1]) == [("rare", 2500, 0.5)]
    assert collect(read_all(server, f"/jobs/{job}/metrics/stream", "4990", names=["rare", "lr"])[:-1]) == [
        *(("lr", step, 0.1) for step in range(2495, 2500)),
        ("rare", 2500, 0.5),
    ]


@on_sqlite
def test_a_quiet_stream_begins_with_a_retry_and_is_kept_alive_by_comments(server, database, job):
    with server.client.stream("GET", f"/jobs/{job}/metrics/stream") as response:
        lines = (line for line in response.iter_lines() if line)
        name, milliseconds = next(lines).split(": ")
        assert (name, 1000 <= int(milliseconds) <= 3000) == ("retry", True)
        assert [next(lines) for _ in range(2)] == [": keep-alive"] * 2
        assert response.headers["x-accel-buffering"] == "no"
        claim = given.claim_job(database)
        given.record_events(database, claim, given.metrics(0, loss=1.0))
        assert "event: metrics" in lines
        given.finish_job(database, claim)
        assert "event: done" in lines


@on_sqlite
def test_a_stream_of_points_that_are_filtered_out_is_kept_alive(server, database, job, claim):
    with server.client.stream("GET", f"/jobs/{job}/metrics/stream", params={"names": "online/knn"}) as response:
        lines = (line for line in response.iter_lines() if line and not line.startswith("retry"))
        for step in range(4):
            given.record_events(database, claim, given.metrics(step, loss=1.0))
            assert next(lines) == ": keep-alive"


@on_sqlite
def test_a_stream_is_refused_before_it_begins(server, client, other, anonymous, database, job):
    for path in (f"/jobs/{job}/metrics/stream", f"/jobs/{job}/events/stream"):
        check_problem(anonymous.get(path), 401, "missing_key")
        check_problem(other.get(path), 404, "job_not_found")
        problem = check_problem(client.get(path, headers={"Last-Event-ID": "x"}), 422, "invalid_request")
        assert get_pointers(problem) == ["last-event-id"]
        assert get_pointers(check_problem(client.get(path, params={"after": -1}), 422, "invalid_request")) == ["after"]
    problem = check_problem(
        client.get(f"/jobs/{job}/metrics/stream", params={"names": "train/los"}), 422, "invalid_request"
    )
    assert problem["detail"].startswith("There is no metric `train/los`; did you mean `train/loss`? There are ")


@on_sqlite
def test_streams_are_limited_by_key_and_in_all(make_server, database, tenant, job):
    path = f"/jobs/{job}/events/stream"
    with database.writing() as session:
        another = {"Authorization": f"Bearer {keys.create(session, tenant, 'another')[1]}"}
    with make_server(long_polls_per_key=1, http_connections=4) as server, streaming(server, path) as messages:
        next(messages)
        check_problem(server.client.get(path), 429, "too_many_polls")
        check_problem(server.client.get(f"/jobs/{job}/metrics", params={"wait": 5}), 429, "too_many_polls")
        with server.client.stream("GET", path, headers=another) as response:
            assert response.status_code == 200
            with database.writing() as session:
                third = {"Authorization": f"Bearer {keys.create(session, tenant, 'third')[1]}"}
            refused = check_problem(server.client.get(path, headers=third), 503, "unavailable")
            assert "wait" in refused["detail"]


def test_the_streams_of_a_key_end_when_it_is_revoked(server, database, tenant, job):
    with database.reading() as session:
        (used,) = keys.list_(session, tenant)
    with streaming(server, f"/jobs/{job}/metrics/stream") as messages:
        with database.writing() as session:
            keys.revoke(session, tenant, used.id)
        assert list(messages) == []


@on_sqlite
def test_a_server_that_stops_ends_its_streams(make_server, database, job, claim):
    given.record_events(database, claim, given.metrics(0, loss=1.0))
    with make_server(http_grace_seconds=600) as server, streaming(server, f"/jobs/{job}/metrics/stream") as messages:
        assert collect([next(messages)]) == [("loss", 0, 1.0)]
        server.process.send_signal(signal.SIGTERM)
        assert list(messages) == []
        assert server.process.wait(60) == 0


@on_sqlite
def test_the_client_follows_a_job_across_a_restart_of_the_server(server, database, job, claim):
    with Client(server.url, server.key) as client:
        given.record_events(database, claim, given.metrics(0, loss=1.0, lr=0.1))
        items, events = client.jobs.stream_metrics(job, ["loss"]), client.jobs.stream_events(job, after=1)
        assert next(items)["series"][0]["value"] == [1.0]
        assert next(events)["seq"] == 2
        server.kill()
        server.start()
        given.record_events(database, claim, given.metrics(1, loss=2.0, lr=0.1))
        item = next(items)
        assert ([series["step"] for series in item["series"]], item["last"]) == ([[1]], 4)
        given.finish_job(database, claim)
        assert list(items) == []
        assert [event["data"].get("status") for event in events] == ["succeeded"]


@on_sqlite
def test_a_client_that_does_not_read_is_disconnected_and_holds_no_page(make_server, database, job, claim):
    given.record_events(
        database, claim, *(given.metrics(step, **{f"m{n}": 0.1 for n in range(100)}) for step in range(2000))
    )
    with make_server(http_body_seconds=1, long_polls_per_key=20) as server:
        before, connections = server.peak_bytes, [server.connect() for _ in range(20)]
        request = f"GET /jobs/{job}/metrics/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n\r\n"
        for connection in connections:
            connection.sendall(request.encode())
            assert connection.recv(12) == b"HTTP/1.1 200"
        soon(lambda: is_admitted(server, f"/jobs/{job}/events/stream"))
        for connection in connections:
            connection.close()
        assert server.peak_bytes - before < 32 << 20


def is_admitted(server, path):
    with server.client.stream("GET", path) as response:
        return response.status_code == 200

"""All points of a job as NDJSON and CSV."""

import asyncio
import csv
import io
import json

import pytest

from api.streams import lines
from service import steering
from tests.api.live import serving
from tests.api.responses import check_problem, get_pointers
from tests.service import given

TYPES = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


@pytest.fixture
def points(client, database, job, claim):
    """The points of the job by JSON, as tuples."""
    given.record_events(
        database,
        claim,
        *(given.metrics(step, **{"train/loss": 1 / (step + 3), "a": None if step % 2 else 1e-9}) for step in range(30)),
        given.metrics(30, **{"train/lr": 0.125}),
    )
    return read_json(client, job)


def read_json(client, job, **params):
    answer = client.get(f"/jobs/{job}/metrics", params={"max_points": 10_000, **params}).json()
    return {
        (series["name"], *point)
        for series in answer["series"]
        for point in zip(series["step"], series["epoch"], series["time"], series["value"], strict=True)
    }


def read_lines(answer):
    """Return the points of the response, in its order."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == TYPES["ndjson"]:
        rows = [json.loads(line) for line in answer.text.splitlines()]
        assert [row.pop("seq") for row in rows] == sorted(
            {json.loads(line)["seq"] for line in answer.text.splitlines()}
        )
        return [tuple(row.values()) for row in rows]
    assert answer.headers["content-type"] == TYPES["csv"]
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header == ["name", "step", "epoch", "time", "value"]
    return [(row[0], int(row[1]), float(row[2]), float(row[3]), float(row[4]) if row[4] else None) for row in rows]


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_lines_have_the_points_of_json(client, job, points, format):
    found = read_lines(client.get(f"/jobs/{job}/metrics", params={"format": format}))
    assert len(found) == len(points) == 61
    assert set(found) == points
    some = read_lines(client.get(f"/jobs/{job}/metrics", params={"format": format, "names": "a", "after": 10}))
    assert set(some) == read_json(client, job, names="a", after=10)
    assert 0 < len(some) < 30


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_the_format_is_chosen_by_accept_unless_it_is_given(client, job, points, format):
    place, media_type = f"/jobs/{job}/metrics", TYPES[format].partition(";")[0]
    answer = client.get(place, headers={"Accept": f"text/plain, {media_type};q=0.9"})
    assert set(read_lines(answer)) == points
    assert answer.headers["vary"] == "Accept"
    for accept in ("*/*", f"application/json, {media_type}", "image/png"):
        assert client.get(place, headers={"Accept": accept}).json()["last"] == 61
    assert client.get(place, params={"format": "json"}, headers={"Accept": media_type}).json()["last"] == 61
    etag = client.get(place, params={"format": format}).headers["etag"]
    assert etag == answer.headers["etag"] != client.get(place).headers["etag"]
    again = client.get(place, headers={"Accept": media_type, "If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_lines_cannot_be_is_refused(client, other, job):
    place = f"/jobs/{job}/metrics"
    problem = check_problem(client.get(place, params={"format": "xml"}), 422, "invalid_request")
    assert get_pointers(problem) == ["format"]
    assert all(f"'{name}'" in problem["detail"] for name in ("json", "ndjson", "csv"))
    problem = check_problem(client.get(place, params={"format": "csv", "max_points": 9}), 422, "invalid_request")
    assert get_pointers(problem) == ["max_points"]
    check_problem(client.get(place, params={"format": "csv", "names": "train/los"}), 422, "invalid_request")
    check_problem(other.get(place, params={"format": "csv"}), 404, "job_not_found")
    assert client.get(place, params={"format": "csv"}).text == "name,step,epoch,time,value\n"
    assert client.get(place, params={"format": "ndjson"}).text == ""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_many_points_are_sent_in_little_memory(settings, key, database, job, claim):
    for start in range(0, 300_000, 20_000):
        batch = (
            given.metrics(step, **dict.fromkeys("abcde", 0.1)) for step in range(start // 5, (start + 20_000) // 5)
        )
        given.record_events(database, claim, *batch)
    with serving(settings, key) as server:
        server.client.get(f"/jobs/{job}/metrics", params={"format": "ndjson", "after": 299_999})
        before, lines = server.peak_bytes, 0
        with server.client.stream("GET", f"/jobs/{job}/metrics", params={"format": "ndjson"}) as answer:
            for piece in answer.iter_bytes():
                lines += piece.count(b"\n")
        assert lines == 300_000
        assert server.peak_bytes - before < 16 << 20


def test_lines_of_points_that_are_deleted_meanwhile_break_off_and_do_not_end(database, tenant, job, claim):
    given.record_events(database, claim, *map(given.metrics, range(5000)))
    given.finish_job(database, claim, "failed")

    async def read() -> None:
        async for _ in lines.write_lines(database, job, None, 0, 5000, lines.NDJSON):
            with database.writing() as session:
                steering.retry(session, tenant, job, "start")

    with pytest.raises(lines.PointsDeleted):
        asyncio.run(read())

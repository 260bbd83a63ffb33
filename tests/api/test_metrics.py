"""Route of /jobs/{job_id}/metrics: columns, ETags and long polling."""

import asyncio
import threading
import time

import httpx
import pytest

from api import schemas
from api.app import create
from tests.api.responses import check_body, check_problem, get_pointers
from tests.processes import soon
from tests.service import given


@pytest.fixture
def job(database, tenant):
    return given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id


@pytest.fixture
def claim(database, job):
    return given.claim_job(database)


def test_points_are_columns_after_a_cursor(client, database, job, claim):
    given.record_events(database, claim, *(given.metrics(step, loss=float(step), lr=None) for step in range(3)))
    answer = check_body(schemas.Metrics, client.get(f"/jobs/{job}/metrics"))
    assert answer["last"] == 6
    loss, lr = answer["series"]
    assert loss == {
        "name": "loss",
        "step": [0, 1, 2],
        "epoch": [0, 0.1, 0.2],
        "time": [1000, 1001, 1002],
        "value": [0, 1, 2],
    }
    assert (lr["name"], lr["value"]) == ("lr", [None, None, None])
    given.record_events(database, claim, given.metrics(3, loss=3.0))
    assert client.get(f"/jobs/{job}/metrics", params={"after": 6}).json()["series"][0]["value"] == [3]
    nothing = check_body(schemas.Metrics, client.get(f"/jobs/{job}/metrics", params={"after": 7}))
    assert nothing == {"series": [], "last": 7}


def test_series_are_selected_and_thinned(client, database, job, claim):
    given.record_events(database, claim, *(given.metrics(step, a=1.0, b=2.0, c=3.0) for step in range(100)))
    place = f"/jobs/{job}/metrics"
    assert [series["name"] for series in client.get(place, params={"names": "a, c"}).json()["series"]] == ["a", "c"]
    assert [series["name"] for series in client.get(place, params={"names": ["a", "c"]}).json()["series"]] == ["a", "c"]
    assert client.get(place, params={"names": "online/knn, train/std"}).json()["series"] == []
    for name, closest in (
        ("train/los", "train/loss"),
        ("online_knn", "online/knn"),
        ("knn/top1_pixel", "knn/top1_pixels"),
    ):
        problem = check_problem(client.get(place, params={"names": f"a,{name}"}), 422, "invalid_request")
        assert problem["detail"].startswith(f"There is no metric `{name}`; did you mean `{closest}`? There are ")
        assert get_pointers(problem) == ["names"]
    (thin,) = client.get(place, params={"names": "a", "max_points": 5}).json()["series"]
    assert (len(thin["step"]), thin["step"][0], thin["step"][-1]) == (5, 0, 99)


def test_unchanged_poll_is_304_without_reading_points(client, app, database, job, claim):
    given.record_events(database, claim, given.metrics(0))
    place = f"/jobs/{job}/metrics"
    first = client.get(place)
    statements = watch(app.state.database)
    again = client.get(place, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert statements
    assert not any("points" in statement.replace("last_point", "") for statement in statements)
    assert client.get(place, headers={"If-None-Match": f'"x", W/{first.headers["etag"]}'}).status_code == 304
    assert client.get(place, params={"max_points": 9}, headers={"If-None-Match": first.headers["etag"]}).is_success
    given.record_events(database, claim, given.metrics(1))
    changed = client.get(place, headers={"If-None-Match": first.headers["etag"]})
    assert (changed.status_code, changed.json()["last"]) == (200, 2)


def watch(database):
    from sqlalchemy import event

    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    return statements


def start_long_poll(client, app, job):
    """Start a long poll in a thread; return the thread and the list that its response is appended to."""
    answers, statements = [], watch(app.state.database)
    poll = threading.Thread(target=lambda: answers.append(client.get(f"/jobs/{job}/metrics", params={"wait": 25})))
    poll.start()
    soon(lambda: sum("last_point" in statement for statement in statements) >= 2)  # it has polled twice
    assert poll.is_alive()
    return poll, answers


def test_long_poll_returns_at_the_first_new_point_and_holds_no_connection(client, app, database, job, claim):
    poll, answers = start_long_poll(client, app, job)
    free = [app.state.database.engine.pool.checkedout() for _ in range(20) if not time.sleep(0.02)]
    assert free.count(0) > 10  # it holds no connection between polls
    given.record_events(database, claim, given.metrics(0))
    poll.join(20)
    assert answers[0].json()["last"] == 1


def test_many_long_polls_share_one_query_and_are_limited_by_key(settings, key, database, job, claim):
    few = settings.model_copy(update={"long_polls_per_key": 30})
    application = create(few)
    statements = watch(application.state.database)

    async def poll_together():
        transport = httpx.ASGITransport(application)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
            polls = [asyncio.create_task(client.get(f"/jobs/{job}/metrics", params={"wait": 25})) for _ in range(31)]
            (refused,), waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            check_problem(refused.result(), 429, "too_many_polls")
            before = len(statements)
            await asyncio.sleep(1.5)
            assert len(statements) - before <= 3 * 6  # of all together; on SQLite each has a BEGIN
            given.record_events(database, claim, given.metrics(0))
            return [answer.json()["last"] for answer in await asyncio.gather(*waiting)]

    assert asyncio.run(poll_together()) == [1] * 30
    application.state.database.close()


def test_long_poll_returns_when_the_job_ends(client, app, database, job, claim):
    poll, answers = start_long_poll(client, app, job)
    given.finish_job(database, claim, "failed", {"code": "diverged", "detail": "The loss is not finite."})
    poll.join(20)
    assert answers[0].json() == {"series": [], "last": 0}
    assert client.get(f"/jobs/{job}/metrics", params={"wait": 25}).is_success  # returns at once when the job has ended


def test_long_poll_returns_after_its_timeout(client, database, job, claim):
    given.record_events(database, claim, given.metrics(0))
    place = f"/jobs/{job}/metrics"
    assert client.get(place, params={"after": 1, "wait": 0.05}).json() == {"series": [], "last": 1}
    etag = client.get(place).headers["etag"]
    assert client.get(place, params={"wait": 0.05}, headers={"If-None-Match": etag}).status_code == 304


WRONG = [("after", -1), ("after", 2**63), ("after", "x"), ("max_points", 1), ("max_points", 10**9)]
WRONG += [("wait", "nan"), ("wait", "inf"), ("wait", -1)]


@pytest.mark.parametrize(("name", "value"), WRONG)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_parameter_out_of_range_is_refused(client, job, name, value):
    body = check_problem(client.get(f"/jobs/{job}/metrics", params={name: value}), 422, "invalid_request")
    assert get_pointers(body) == [name]

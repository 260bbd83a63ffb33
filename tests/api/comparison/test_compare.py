"""GET /jobs/compare."""

import pytest

from api import schemas
from service import metrics
from service.comparison import jobs as comparison
from ssl_core import events
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def compare(client, *jobs, **parameters):
    answer = client.get("/jobs/compare", params={"ids": ",".join(job["id"] for job in jobs), **parameters})
    return check_body(schemas.Comparison, answer)


def test_jobs_are_shown_side_by_side_in_the_order_that_was_asked_for(client, run_job, make_model):
    resolved = {"method": {"name": "simclr", "temperature": 0.2}, "batch_size": 32, "seed": 0}
    points = [given.metrics(step, **{"train/loss": 1.0 / step, "train/lr": 0.1}) for step in range(1, 301)]
    first = run_job(events.Resolved(resolved), *points, events.Result({"loss": 0.5}), name="first")
    other = {**resolved, "method": {**resolved["method"], "temperature": 0.5}}
    second = run_job(events.Resolved(other), *points[:3], ending="failed", name="second")
    found = compare(client, second, first, names="train/loss", max_points=50)
    assert [job["id"] for job in found["jobs"]] == [second["id"], first["id"]]
    assert [(job["name"], job["status"], job["method"], job["summary"]) for job in found["jobs"]] == [
        ("second", "failed", "simclr", None),
        ("first", "succeeded", "simclr", {"loss": 0.5}),
    ]
    of_second, of_first = (job["series"] for job in found["jobs"])
    assert of_second[0]["step"] == [1, 2, 3]
    assert (len(of_first), len(of_first[0]["step"]), of_first[0]["step"][-1]) == (1, 50, 300)
    values = {second["id"]: 0.5, first["id"]: 0.2}
    assert found["differences"] == [{"pointer": "/method/temperature", "values": values}]
    assert [series["name"] for series in compare(client, first)["jobs"][0]["series"]] == ["train/loss", "train/lr"]


def test_an_evaluation_has_the_method_of_its_model_and_a_queued_job_its_own_config(
    client, dataset, run_job, make_model
):
    model = make_model("byol")
    judged = run_job(events.Result({"top1": 0.5}), kind="knn_eval", model=model)
    body = {"dataset": dataset, "kind": "knn_eval", "model": model, "config": {"k": 7}}
    queued = client.post("/jobs", json=body).json()
    found = compare(client, judged, queued)
    assert [(job["method"], job["model"]) for job in found["jobs"]] == [("byol", model)] * 2
    assert found["differences"] == [{"pointer": "/k", "values": {judged["id"]: 200, queued["id"]: 7}}]


def test_a_job_that_is_missing_or_of_others_is_named(client, other, run_job):
    first, second = run_job(ending="failed"), run_job(ending="failed")
    ids = f"{first['id']},job_x,{second['id']},job_{'0' * 26}"
    problem = check_problem(client.get("/jobs/compare", params={"ids": ids}), 404, "job_not_found")
    assert [fault["detail"] for fault in problem["errors"]] == [
        "There is no job job_x.",
        f"There is no job job_{'0' * 26}.",
    ]
    check_problem(other.get("/jobs/compare", params={"ids": first["id"]}), 404, "job_not_found")
    client.delete(f"/jobs/{first['id']}")
    check_problem(client.get("/jobs/compare", params={"ids": first["id"]}), 404, "job_not_found")


@on_sqlite
def test_the_path_allows_its_own_method_only(client):
    answer = client.put("/jobs/compare")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert client.put("/jobs/job_x").headers["allow"] == "DELETE, GET, PATCH"


@on_sqlite
def test_ids_may_be_repeated_and_are_at_most_20(client, run_job):
    first, second = run_job(ending="failed"), run_job(ending="failed")
    answer = client.get("/jobs/compare", params={"ids": [first["id"], f"{second['id']} , {first['id']}"]})
    assert [job["id"] for job in check_body(schemas.Comparison, answer)["jobs"]] == [first["id"], second["id"]]
    many = ",".join(f"job_{number:026}" for number in range(21))
    for ids in (many, "", ","):
        answer = client.get("/jobs/compare", params={"ids": ids})
        assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["ids"]
    check_problem(client.get("/jobs/compare"), 422, "invalid_request")


@on_sqlite
def test_an_unknown_name_is_refused_and_one_of_any_of_the_jobs_is_known(client, run_job):
    first, second = run_job(given.metrics(1, old=1.0), ending="failed"), run_job(ending="failed")
    assert [len(job["series"]) for job in compare(client, second, first, names="old")["jobs"]] == [0, 1]
    answer = client.get("/jobs/compare", params={"ids": second["id"], "names": "old"})
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["names"]


@on_sqlite
def test_the_points_of_all_series_together_are_bounded(client, run_job, monkeypatch):
    points = [given.metrics(step, **{f"m{number}": 1.0 for number in range(10)}) for step in range(100)]
    job = run_job(*points, ending="failed")
    monkeypatch.setattr(comparison, "MAX_POINTS", 200)
    (found,) = compare(client, job, max_points=metrics.MAX_POINTS)["jobs"]
    assert [len(series["step"]) for series in found["series"]] == [20] * 10

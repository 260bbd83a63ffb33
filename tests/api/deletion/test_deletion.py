"""DELETE of jobs and models."""

import pytest

from api import schemas
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


@pytest.fixture
def job(client, database, dataset):
    """A job that has succeeded, with a model and a checkpoint."""
    made = client.post("/jobs", json={"dataset": dataset, "config": given.PRETRAIN}).json()
    claim = given.claim_job(database)
    given.record_events(database, claim, given.metrics(1), given.checkpoint(1), given.model())
    given.finish_job(database, claim)
    return client.get(f"/jobs/{made['id']}").json()


def test_a_model_and_then_its_job_are_deleted(client, job):
    model, url = job["model_id"], f"/jobs/{job['id']}"
    problem = check_problem(client.delete(url), 409, "job_in_use")
    assert get_pointers(problem) == [f"/models/{model}"]
    assert client.get("/usage").json()["bytes"]["of"]["models"] == 10
    for method, place in (("DELETE", f"/models/{model}"), ("DELETE", url)):
        answer = client.request(method, place)
        assert (answer.status_code, answer.content) == (204, b"")
    assert client.get("/usage").json()["bytes"]["used"] == 1000  # of the dataset
    for place in (url, *(f"{url}/{part}" for part in ("events", "metrics", "checkpoints", "artifacts"))):
        check_problem(client.get(place), 404, "job_not_found")
    check_problem(client.delete(url), 404, "job_not_found")
    for name in (model, job["id"]):
        for method in ("GET", "DELETE"):
            check_problem(client.request(method, f"/models/{name}"), 404, "model_not_found")
        check_problem(client.get(f"/models/{name}/download"), 404, "model_not_found")
        check_problem(client.post("/embed", json={"model": name, "images": ["aGk="]}), 404, "model_not_found")
    for place in ("/jobs", "/models"):
        assert client.get(place).json()["data"] == []
    for verb in ("cancel", "pause", "resume", "retry", "clone"):
        check_problem(client.post(f"{url}/{verb}"), 404, "job_not_found")


def test_jobs_that_have_used_what_is_deleted_still_show_it(client, database, dataset, job):
    body = {"kind": "knn_eval", "dataset": dataset, "model": job["id"]}
    judged = client.post("/jobs", json=body).json()
    problem = check_problem(client.delete(f"/models/{job['model_id']}"), 409, "model_in_use")
    assert get_pointers(problem) == [f"/jobs/{judged['id']}"]
    assert judged["id"] in problem["detail"]
    given.finish_job(database, given.claim_job(database))
    assert client.delete(f"/models/{job['id']}").status_code == 204
    assert client.delete(f"/jobs/{job['id']}").status_code == 204
    assert check_body(schemas.Job, client.get(f"/jobs/{judged['id']}"))["model"] == job["model_id"]
    check_problem(client.post(f"/jobs/{judged['id']}/clone"), 404, "model_not_found")
    check_problem(client.post("/jobs", json=body), 404, "model_not_found")


def test_a_job_that_has_not_ended_is_cancelled_first(client, dataset):
    job = client.post("/jobs", json={"dataset": dataset, "config": given.PRETRAIN}).json()["id"]
    problem = check_problem(client.delete(f"/jobs/{job}"), 409, "job_not_ended")
    assert problem["detail"] == "The job is queued; cancel it first."
    client.post(f"/jobs/{job}/cancel")
    assert client.delete(f"/jobs/{job}").status_code == 204


def test_the_resources_of_others_are_not_found(other, job):
    check_problem(other.delete(f"/jobs/{job['id']}"), 404, "job_not_found")
    check_problem(other.delete(f"/models/{job['model_id']}"), 404, "model_not_found")


def test_counts_of_ended_jobs_do_not_fall(client, job):
    def read():
        lines = client.get("/metrics").text.splitlines()
        return [line.rpartition(" ")[2] for line in lines if 'kind="pretrain",status="succeeded"' in line]

    assert read() == ["1.0", "1.0"]
    client.delete(f"/models/{job['model_id']}")
    client.delete(f"/jobs/{job['id']}")
    assert read() == ["0.0", "1.0"]  # the gauge of jobs, and the counter of ends

"""Routes that steer a job: pause, resume, retry, cancel, clone, and PATCH."""

import pytest

from api import schemas
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


@pytest.fixture
def job(client, dataset):
    body = {"dataset": dataset, "config": given.PRETRAIN, "name": "first", "priority": 3, "metadata": {"a": "b"}}
    return client.post("/jobs", json=body | {"max_runtime": 100}).json()


def post(client, job, verb, **body):
    return client.post(f"/jobs/{job['id']}/{verb}", **({"json": body} if body else {}))


def test_a_job_has_the_urls_of_what_steers_it(client, job):
    for verb, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        for _ in range(2):
            assert check_body(schemas.Job, client.post(job["urls"][verb]))["status"] == status
    assert check_body(schemas.Job, client.post(job["urls"]["clone"]), 202)["status"] == "queued"


def test_a_running_job_is_paused_and_a_job_that_has_ended_is_not(client, database, job):
    claim = given.claim_job(database)
    assert post(client, job, "pause").json()["status"] == "pausing"
    given.finish_job(database, claim)
    for verb in ("pause", "resume"):
        check_problem(post(client, job, verb), 409, "job_has_ended")
    check_problem(post(client, job, "retry"), 409, "job_has_succeeded")


def test_a_retry_starts_at_the_checkpoint_or_at_the_start(client, database, job):
    for start, left in ((None, 1), ("checkpoint", 1), ("start", 0)):
        claim = given.claim_job(database)
        given.record_events(database, claim, given.checkpoint(claim.attempt * 10), given.metrics(claim.attempt * 10))
        given.finish_job(database, claim, "failed")
        before = client.get(f"/jobs/{job['id']}/metrics")
        retried = check_body(schemas.Job, post(client, job, "retry", **({"start": start} if start else {})))
        assert (retried["status"], retried["error"], retried["finished_at"]) == ("queued", None, None)
        assert bool(client.get(f"/jobs/{job['id']}/checkpoints").json()["data"]) == bool(left)
    unchanged = client.get(f"/jobs/{job['id']}/metrics", headers={"If-None-Match": before.headers["etag"]})
    assert (unchanged.status_code, unchanged.json()["series"]) == (200, [])
    answer = post(client, job, "retry", start="middle")
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["/start"]


def test_an_import_is_neither_retried_nor_cloned(client):
    made = client.post("/models", files={"file": ("a.bin", b"bytes")}).json()
    post(client, made, "cancel")
    check_problem(post(client, made, "retry"), 409, "upload_gone")
    check_problem(post(client, made, "clone"), 409, "upload_gone")


def test_a_clone_has_the_fields_of_the_job_and_the_changes(client, job):
    changes = {"method": {"temperature": 0.5}, "seed": 7, "batch_size": None}
    clone = check_body(schemas.Job, post(client, job, "clone", config=changes, name="second"), 202)
    wanted = {**job["config"], "seed": 7, "batch_size": "auto"}
    wanted["method"] = {**job["config"]["method"], "temperature": 0.5}
    assert clone["config"] == wanted
    assert clone["id"] != job["id"]
    for name, value in {"name": "second", "priority": 3, "metadata": {"a": "b"}, "max_runtime": 100}.items():
        assert clone[name] == value
    other = post(client, job, "clone", config={"method": {"name": "byol"}}).json()
    assert other["config"]["method"]["name"] == "byol"
    assert "temperature" not in other["config"]["method"]


def test_a_clone_is_made_once_for_an_idempotency_key(client, job):
    ids = {client.post(job["urls"]["clone"], headers={"Idempotency-Key": "k"}).json()["id"] for _ in range(2)}
    assert len(ids) == 1
    answer = client.post(job["urls"]["clone"], headers={"Idempotency-Key": "k"}, json={"name": "other"})
    check_problem(answer, 422, "idempotency_mismatch")


def test_a_clone_is_validated(client, job):
    answer = post(client, job, "clone", config={"method": {"temperatur": 1}})
    assert get_pointers(check_problem(answer, 422, "invalid_config")) == ["/config/method/temperatur"]
    check_problem(post(client, job, "clone", dataset="ds_none"), 404, "dataset_not_found")
    check_problem(post(client, job, "clone", kind="export"), 422, "invalid_request")


def test_a_clone_of_an_evaluation_has_its_model(client, database, dataset, job):
    judged = client.post("/jobs", json={"kind": "knn_eval", "dataset": dataset, "model": job["id"]}).json()
    assert post(client, judged, "clone").json()["model"] == job["id"]


def test_fields_are_changed(client, database, job):
    url = f"/jobs/{job['id']}"
    changed = check_body(schemas.Job, client.patch(url, json={"name": "renamed", "priority": -5}))
    assert (changed["name"], changed["priority"], changed["metadata"]) == ("renamed", -5, {"a": "b"})
    given.claim_job(database)
    assert client.patch(url, json={"metadata": {}, "name": None}).json()["name"] is None
    problem = check_problem(client.patch(url, json={"priority": 1}), 409, "job_has_started")
    assert get_pointers(problem) == ["/priority"]
    for body, pointer in (
        ({"status": "succeeded"}, "/status"),
        ({"priority": 1001}, "/priority"),
        ({"name": ""}, "/name"),
    ):
        assert get_pointers(check_problem(client.patch(url, json=body), 422, "invalid_request")) == [pointer]


def test_a_queued_job_shows_its_place(client, database, job, dataset):
    other = client.post("/jobs", json={"dataset": dataset, "config": given.PRETRAIN, "priority": 9}).json()
    places = [check_body(schemas.Job, client.get(f"/jobs/{each['id']}"))["queue"] for each in (other, job)]
    assert places == [{"position": 1, "estimated_start": None}, {"position": 2, "estimated_start": None}]
    given.claim_job(database)
    assert client.get(f"/jobs/{other['id']}").json()["queue"] is None


def test_the_jobs_of_others_are_not_found(other, job):
    for verb in ("pause", "resume", "retry", "cancel", "clone"):
        check_problem(post(other, job, verb), 404, "job_not_found")
    check_problem(other.patch(f"/jobs/{job['id']}", json={}), 404, "job_not_found")


def test_a_retry_and_a_clone_count_towards_the_quota(client, app, database, job):
    app.state.settings = app.state.settings.model_copy(update={"quota_queued_jobs": 1})
    problem = check_problem(post(client, job, "clone"), 409, "job_quota_exceeded")
    assert get_pointers(problem) == ["queued_jobs"]
    given.finish_job(database, given.claim_job(database), "failed")
    assert [post(client, job, "retry").status_code for _ in range(2)] == [200, 200]  # the second changes nothing
    check_problem(client.post("/jobs/job_none/retry"), 404, "job_not_found")


def test_null_in_a_clone_is_no_value(client, job):
    clone = post(client, job, "clone", name=None, max_runtime=None).json()
    assert (clone["name"], clone["max_runtime"], clone["priority"]) == (None, None, 3)
    check_problem(post(client, job, "clone", dataset=None), 422, "invalid_request")

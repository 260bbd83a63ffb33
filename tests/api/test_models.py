"""Models over HTTP: what is shown, and the bytes."""

import base64
import hashlib

import pytest

from api import schemas
from ssl_core import events
from tests.api.answers import pointers, problem, shown
from tests.service import given

WEIGHTS = bytes(range(256)) * 40
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
CARD = {"method": "simclr", "layers": {"backbone": 64}, "preprocessing": {"image_size": 32}, "backbone": {"name": "r"}}


@pytest.fixture
def job(database, tenant, storage):
    job = given.submitted(database, tenant, given.ready(database, tenant), name="Gulls").id
    claim = given.claimed(database)
    folder = storage.attempt_dir(job, 1) / "model"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(WEIGHTS)
    (folder / "model.json").write_text("{}")
    (folder / "README.md").write_text("# Gulls\n")
    given.recorded(database, claim, events.Model("model", SHA256, len(WEIGHTS), 64, CARD), events.Result({}))
    given.finished(database, claim)
    return job


@pytest.fixture
def model(client, job):
    return client.get(f"/jobs/{job}").json()["model_id"]


def test_a_model_is_shown_by_its_own_id_and_by_its_jobs(client, job, model):
    answer = shown(schemas.Model, client.get(f"/models/{model}"))
    assert client.get(f"/models/{job}").json() == answer
    assert (answer["name"], answer["job_id"], answer["dim"], answer["sha256"]) == ("Gulls", job, 64, SHA256)
    assert (answer["method"], answer["layers"]) == ("simclr", {"backbone": 64})
    page = shown(schemas.ModelList, client.get("/models"))
    assert page["data"] == [answer]


def test_weights_are_downloaded_whole_in_ranges_and_not_twice(client, job, model):
    place = f"/models/{model}/download"
    whole = client.get(place)
    assert (whole.content, whole.headers["etag"]) == (WEIGHTS, f'"{SHA256}"')
    digest = base64.b64encode(hashlib.sha256(WEIGHTS).digest()).decode()
    assert whole.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert client.get(f"/models/{job}/download", params={"file": "weights"}).content == WEIGHTS
    piece = client.get(place, headers={"Range": "bytes=100-199", "If-Range": whole.headers["etag"]})
    assert (piece.status_code, piece.content) == (206, WEIGHTS[100:200])
    assert client.get(place, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert client.get(place, params={"file": "card"}).json() == {}
    readme = client.get(place, params={"file": "readme"})
    assert (readme.text, readme.headers["content-type"]) == ("# Gulls\n", "text/markdown; charset=utf-8")


def test_a_range_that_is_not_there_is_a_problem(client, model):
    place = f"/models/{model}/download"
    answer = client.get(place, headers={"Range": "bytes=999999-"})
    problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(WEIGHTS)}"
    problem(client.get(place, headers={"Range": "bytes=x-y"}), 400, "bad_request")


def test_a_file_that_is_not_there_is_told(client, model):
    problem(client.get(f"/models/{model}/download", params={"file": "heads"}), 409, "model_damaged")
    body = problem(client.get(f"/models/{model}/download", params={"file": "../x"}), 422, "invalid_request")
    assert pointers(body) == ["file"]


def test_a_model_that_is_not_there_yet_or_never_will_be(client, database, tenant):
    job = given.submitted(database, tenant, given.ready(database, tenant)).id
    for place in (f"/models/{job}", f"/models/{job}/download"):
        problem(client.get(place), 409, "model_not_ready")
    client.post(f"/jobs/{job}/cancel")
    problem(client.get(f"/models/{job}"), 409, "parent_failed")
    problem(client.get("/models/mdl_none"), 404, "model_not_found")


def test_another_tenants_model_answers_like_a_missing_one(other, job, model):
    for name in (job, model):
        problem(other.get(f"/models/{name}"), 404, "model_not_found")
        problem(other.get(f"/models/{name}/download"), 404, "model_not_found")
    assert other.get("/models").json()["data"] == []

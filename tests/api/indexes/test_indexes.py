"""POST, GET and DELETE /indexes: what can be indexed, lists, deletion, quotas and repeated requests."""

import time

import pytest

from api import schemas
from service import garbage
from service.db.models import Job, VectorIndex
from service.settings import Settings
from service.storage import Storage
from tests.api.conftest import TestClient
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given
from tests.worker.indexes import embedded

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
IMAGES = embedded.draw(20)


@pytest.fixture
def encoder():
    """None is needed."""


@pytest.fixture
def data_folder(settings: Settings):
    """A folder of the test's own."""
    return settings.data_dir


@pytest.fixture
def embed(database, tenant, data_folder):
    """Insert a job that has left embeddings, and return its id."""
    return lambda **fields: embedded.add_job(database, Storage(data_folder), tenant, IMAGES, **fields)


def create(client: TestClient, job: str, **fields) -> dict:
    answer = client.post("/indexes", json={"job": job, **fields})
    found = check_body(schemas.Index, answer, 202)
    assert answer.headers["location"] == f"/indexes/{found['id']}"
    return found


def test_an_index_is_building_until_a_worker_has_built_it(client, embed, database):
    job = embed()
    made = create(client, job, name="photos", metadata={"team": "a"})
    assert made["id"].startswith("idx_")
    expected = {"status": "building", "job": job, "name": "photos", "metadata": {"team": "a"}, "layer": "backbone"}
    assert expected.items() <= made.items()
    assert client.get(f"/indexes/{made['id']}").json() == made
    check_problem(client.post(f"/indexes/{made['id']}/search", json={"row": 0}), 409, "index_not_ready")
    check_problem(client.get(f"/indexes/{made['id']}/outliers"), 409, "index_not_ready")
    claim = given.claim_job(database, "data")
    assert claim.kind == "index"
    assert [file.name for file in claim.embeddings] == [
        "embeddings-00000.npy",
        "embeddings-00000.parquet",
        "embeddings.json",
    ]
    given.finish_job(database, claim, "failed", {"code": "corrupt", "detail": "A file is damaged."})
    failed = client.get(f"/indexes/{made['id']}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "corrupt")
    check_problem(client.get(f"/indexes/{made['id']}/labels"), 409, "index_failed")


@on_sqlite
def test_the_job_that_builds_an_index_is_not_shown(client, embed, database):
    job = embed()
    create(client, job)
    assert [shown["id"] for shown in client.get("/jobs").json()["data"]] == [job]
    with database.reading() as session:
        (build,) = session.query(Job.id).where(Job.kind == "index").all()
    check_problem(client.get(f"/jobs/{build.id}"), 404, "job_not_found")
    check_problem(client.post(f"/jobs/{build.id}/cancel"), 404, "job_not_found")


@on_sqlite
def test_jobs_without_embeddings_are_refused(client, other, embed, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    trained = given.submit_job(database, tenant, dataset).id
    check_problem(client.post("/indexes", json={"job": trained}), 409, "job_has_not_succeeded")
    given.finish_job(database, given.claim_job(database))
    problem = check_problem(client.post("/indexes", json={"job": trained}), 422, "no_embeddings")
    assert get_pointers(problem) == ["/job"]
    check_problem(client.post("/indexes", json={"job": embed(status="running")}), 409, "job_has_not_succeeded")
    for missing in ("job_" + "0" * 26, "x", dataset):
        check_problem(client.post("/indexes", json={"job": missing}), 404, "job_not_found")
    check_problem(other.post("/indexes", json={"job": embed()}), 404, "job_not_found")
    for body in ({}, {"job": 3}, {"job": embed(), "name": " "}, {"job": embed(), "k": 1}):
        check_problem(client.post("/indexes", json=body), 422, "invalid_request")


@on_sqlite
def test_lists_are_filtered_and_paged(client, add_index, embed, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    built = add_index(IMAGES, dataset=dataset)
    others = [create(client, embed())["id"] for _ in range(3)]
    every = check_body(schemas.IndexList, client.get("/indexes"))
    assert [index["id"] for index in every["data"]] == [*reversed(others), built]
    page = client.get("/indexes?limit=3").json()
    assert (page["has_more"], page["next"]) == (True, others[0])
    assert [index["id"] for index in client.get(f"/indexes?after={page['next']}").json()["data"]] == [built]
    for query, expected in (("status=ready", [built]), (f"dataset={dataset}", [built]), ("dataset=x", [])):
        assert [index["id"] for index in client.get(f"/indexes?{query}").json()["data"]] == expected
    check_problem(client.get("/indexes?status=done"), 422, "invalid_request")
    check_problem(client.get("/indexes?kind=a"), 422, "invalid_request")


def test_a_deleted_index_is_gone_and_its_files_are_unused(client, add_index, database, data_folder):
    index, kept = add_index(IMAGES), add_index(IMAGES)
    used = client.get("/usage").json()["bytes"]["of"]["indexes"]
    size = client.get(f"/indexes/{kept}").json()["report"]["bytes"]
    assert used == 2 * size > 0
    assert client.delete(f"/indexes/{index}").status_code == 204
    assert client.get("/usage").json()["bytes"]["of"]["indexes"] == size
    for answer in (client.get(f"/indexes/{index}"), client.delete(f"/indexes/{index}")):
        check_problem(answer, 404, "index_not_found")
    assert [shown["id"] for shown in client.get("/indexes").json()["data"]] == [kept]
    storage = Storage(data_folder)
    with database.reading() as session:
        live, known = garbage.live_uploads(session), garbage.known_folders(session, with_jobs=False)
    storage.sweep(live, known, time.time() + 1, ("indexes/*/*",))
    assert not storage.index_dir(index, 1).exists()
    assert (storage.index_dir(kept, 1) / "index.json").exists()


def test_the_building_of_a_deleted_index_is_cancelled(client, embed, database):
    index = create(client, embed())["id"]
    claim = given.claim_job(database, "data")
    assert client.delete(f"/indexes/{index}").status_code == 204
    assert given.record_events(database, claim) == "cancel"
    given.finish_job(database, claim, "cancelled")
    with database.reading() as session:
        assert session.get_one(VectorIndex, index).path is None
        assert f"indexes/{index}/a1" not in garbage.live_paths(session)


@on_sqlite
def test_a_dataset_is_kept_while_an_index_of_it_is_built_and_no_longer(client, embed, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    index = create(client, embed(dataset=dataset))["id"]
    problem = check_problem(client.delete(f"/datasets/{dataset}"), 409, "dataset_in_use")
    assert get_pointers(problem) == [f"/indexes/{index}"]
    given.finish_job(database, given.claim_job(database, "data"), "failed", {"code": "x", "detail": "x"})
    assert client.delete(f"/datasets/{dataset}").status_code == 204


@on_sqlite
def test_a_repeated_request_makes_one_index(client, embed):
    job = embed()
    answers = [
        client.post("/indexes", json={"job": job}, headers={"Idempotency-Key": "once"}).json()["id"] for _ in range(3)
    ]
    assert len(set(answers)) == 1
    assert len(client.get("/indexes").json()["data"]) == 1

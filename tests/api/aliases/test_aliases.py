"""Routes of /aliases, and aliases where a model is asked for."""

import pytest

from api import schemas
from api.app import create
from service.aliases import names
from service.db import ids
from tests.api.conftest import TestClient
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


@pytest.fixture
def models(client, database, dataset):
    """The ids of two models."""
    made = []
    for _ in range(2):
        job = client.post("/jobs", json={"dataset": dataset, "config": given.PRETRAIN}).json()["id"]
        claim = given.claim_job(database)
        given.record_events(database, claim, given.model())
        given.finish_job(database, claim)
        made.append(client.get(f"/jobs/{job}").json()["model_id"])
    return made


def put(client, alias, model):
    return client.put(f"/aliases/{alias}", json={"model": model})


def test_an_alias_is_given_moved_and_deleted(client, models):
    first = check_body(schemas.Alias, put(client, "prod", models[0]))
    assert (first["name"], first["model"], first["moved_at"]) == ("prod", models[0], first["created_at"])
    assert put(client, "prod", models[0]).json() == first
    second = check_body(schemas.Alias, put(client, "prod", models[1]))
    assert (second["model"], second["created_at"]) == (models[1], first["created_at"])
    assert second["moved_at"] >= first["moved_at"]
    assert client.get("/models/prod").json()["id"] == models[1]
    assert client.delete("/aliases/prod").status_code == 204
    check_problem(client.delete("/aliases/prod"), 404, "alias_not_found")
    check_problem(client.get("/models/prod"), 404, "model_not_found")
    assert client.get(f"/models/{models[1]}").status_code == 200


def test_a_model_shows_its_aliases_and_another_alias_may_be_its_name(client, models):
    put(client, "prod", models[0])
    assert put(client, "best.2027-01_b", "prod").json()["model"] == models[0]
    shown = check_body(schemas.Model, client.get("/models/prod"))
    assert (shown["id"], shown["aliases"]) == (models[0], ["best.2027-01_b", "prod"])
    listed = check_body(schemas.ModelList, client.get("/models"))["data"]
    assert [model["aliases"] for model in listed] == [[], ["best.2027-01_b", "prod"]]
    put(client, "prod", models[1])
    assert client.get("/models/best.2027-01_b").json()["aliases"] == ["best.2027-01_b"]


def test_aliases_are_listed_by_name_in_pages(client, models):
    made = ["b", "a", "c.1", "c"]
    for name in made:
        put(client, name, models[0])
    listed, after = [], {}
    for _ in range(2):
        page = check_body(schemas.AliasList, client.get("/aliases", params={"limit": 2, **after}))
        listed += [alias["name"] for alias in page["data"]]
        after = {"after": page["next"]}
    assert (listed, page["has_more"], page["next"]) == (sorted(made), False, None)
    assert get_pointers(check_problem(client.get("/aliases?after=A"), 422, "invalid_request")) == ["after"]


def test_a_job_keeps_the_model_that_the_alias_named(client, dataset, models):
    put(client, "prod", models[0])
    body = {"kind": "knn_eval", "dataset": dataset, "model": "prod"}
    job = check_body(schemas.Job, client.post("/jobs", json=body), 202)
    put(client, "prod", models[1])
    assert client.get(f"/jobs/{job['id']}").json()["model"] == job["model"] == models[0]
    assert client.post(f"/jobs/{job['id']}/clone", json={"model": "prod"}).json()["model"] == models[1]


@on_sqlite
def test_every_process_sees_an_alias_where_it_was_moved(client, settings, key, models):
    with TestClient(create(settings), headers={"Authorization": f"Bearer {key}"}) as another:
        for model in (*models, *models):
            put(client, "prod", model)
            assert another.get("/models/prod").json()["id"] == model


def test_a_model_with_an_alias_is_not_deleted(client, models):
    put(client, "prod", models[0])
    for name in (models[0], "prod"):
        problem = check_problem(client.delete(f"/models/{name}"), 409, "model_in_use")
        assert get_pointers(problem) == ["/aliases/prod"]
        assert problem["detail"] == "The alias prod names it; move or delete the alias first."
    put(client, "prod", models[1])
    assert client.delete(f"/models/{models[0]}").status_code == 204
    check_problem(put(client, "prod", models[0]), 404, "model_not_found")


def test_owners_have_their_own_aliases(client, other, models):
    put(client, "prod", models[0])
    assert other.get("/aliases").json()["data"] == []
    check_problem(other.get("/models/prod"), 404, "model_not_found")
    check_problem(other.delete("/aliases/prod"), 404, "alias_not_found")
    for name in (models[0], "prod"):
        check_problem(put(other, "prod", name), 404, "model_not_found")
    assert client.get("/models/prod").json()["id"] == models[0]


@on_sqlite
def test_only_a_model_that_is_there_gets_an_alias(client, dataset):
    job = client.post("/jobs", json={"dataset": dataset, "config": given.PRETRAIN}).json()["id"]
    check_problem(put(client, "prod", job), 409, "model_not_ready")
    client.post(f"/jobs/{job}/cancel")
    check_problem(put(client, "prod", job), 409, "parent_failed")
    check_problem(put(client, "prod", "mdl_x"), 404, "model_not_found")
    check_problem(client.put("/aliases/prod", json={}), 422, "invalid_request")


@on_sqlite
@pytest.mark.parametrize("name", ["Prod", "1st", "a" * 64, "mdl_x", "job_latest", "-x", "a b", "ä", "prod%0A"])
def test_a_name_that_is_none_is_refused(client, models, name):
    problem = check_problem(put(client, name, models[0]), 422, "invalid_request")
    assert get_pointers(problem) == ["alias"]
    check_problem(client.delete(f"/aliases/{name}"), 404, "alias_not_found")


def test_no_id_is_the_name_of_an_alias():
    assert not any(names.is_valid(ids.new(prefix)) for prefix in ("mdl", "job", "ds", "ckpt"))
    assert all(names.is_valid(name) for name in ("job", "a" * 63))

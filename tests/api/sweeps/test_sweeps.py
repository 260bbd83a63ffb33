"""/sweeps: started, shown, controlled and refused, on both databases."""

import pytest

from api import schemas
from service.sweeps import progress
from ssl_core import events
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given
from worker.sweeps import pruning

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
TEMPERATURES = {"/method/temperature": {"values": [0.1, 0.5]}}


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


@pytest.fixture
def start(client, dataset):
    """Return a function that posts a sweep with these fields."""
    return lambda **fields: client.post(
        "/sweeps", json={"dataset": dataset, "config": given.PRETRAIN, "space": TEMPERATURES} | fields
    )


@pytest.fixture
def advance(database, settings):
    def advance_once(sweep):
        with database.writing() as session:
            progress.advance(session, sweep, settings, pruning.prune)

    return advance_once


def run_trial(database, value):
    claim = given.claim_job(database)
    point = events.Metrics(10, 1.0, 1.0, {"online/knn": value})
    given.record_events(database, claim, point, given.model(projector={"widths": [64, 64]}))
    given.finish_job(database, claim)


def test_a_sweep_from_its_start_to_its_end(client, start, dataset, database, advance):
    answer = start(name="temperatures", metadata={"team": "vision"}, pruner={"name": "median"})
    sweep = check_body(schemas.Sweep, answer, 202)
    place = answer.headers["location"]
    assert place == f"/sweeps/{sweep['id']}"
    assert (sweep["status"], sweep["trials"], sweep["goal"]) == ("running", 2, "maximize")
    assert sweep["space"] == TEMPERATURES
    assert (sweep["pruner"]["startup_trials"], sweep["search"], sweep["seed"]) == (5, "grid", 0)
    advance(sweep["id"])
    assert client.get(place).json()["counts"]["running"] == 2
    for value in (0.4, 0.6):
        run_trial(database, value)
    advance(sweep["id"])
    shown = check_body(schemas.Sweep, client.get(place))
    assert (shown["status"], shown["finished_at"] is not None) == ("succeeded", True)
    best = shown["best"]
    assert (best["params"], best["value"], best["model"][:4]) == ({"/method/temperature": 0.5}, 0.6, "mdl_")
    trials = check_body(schemas.TrialList, client.get(f"{place}/trials"))["data"]
    assert [trial["value"] for trial in trials] == [0.4, 0.6]
    job = client.get(f"/jobs/{best['job']}").json()
    assert (job["sweep"], job["name"], job["metadata"]) == (sweep["id"], "temperatures 1", {"team": "vision"})
    listed = client.get("/jobs", params={"sweep": sweep["id"]}).json()["data"]
    assert [each["id"] for each in listed] == [trials[1]["job"], trials[0]["job"]]
    page = check_body(schemas.TrialList, client.get(f"{place}/trials", params={"limit": 1}))
    assert (page["has_more"], page["next"]) == (True, 0)
    assert client.get(f"{place}/trials", params={"after": 0}).json()["data"] == trials[1:]
    assert check_body(schemas.SweepList, client.get("/sweeps", params={"status": "succeeded"}))["data"] == [shown]
    assert client.get("/sweeps", params={"dataset": dataset, "status": "running"}).json()["data"] == []


def test_a_sweep_is_paused_resumed_cancelled_and_deleted(client, start, advance):
    sweep = start().json()["id"]
    advance(sweep)
    place = f"/sweeps/{sweep}"
    for verb, status, of_jobs in (("pause", "paused", "paused"), ("resume", "running", "queued")):
        for _ in range(2):
            assert check_body(schemas.Sweep, client.post(f"{place}/{verb}"))["status"] == status
        assert {job["status"] for job in client.get("/jobs").json()["data"]} == {of_jobs}
    for _ in range(2):
        cancelled = check_body(schemas.Sweep, client.post(f"{place}/cancel"))
        assert (cancelled["status"], cancelled["counts"]["cancelled"]) == ("cancelled", 2)
    check_problem(client.post(f"{place}/resume"), 409, "sweep_has_ended")
    assert client.delete(place).status_code == 204
    check_problem(client.get(place), 404, "sweep_not_found")
    check_problem(client.delete(place), 404, "sweep_not_found")


@on_sqlite
def test_the_same_key_starts_one_sweep(client, dataset):
    body = {"dataset": dataset, "config": given.PRETRAIN, "space": TEMPERATURES}
    answers = [client.post("/sweeps", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert len(client.get("/sweeps").json()["data"]) == 1


@on_sqlite
def test_random_draws_are_those_of_the_seed(client, start):
    space = {"/optimizer/lr": {"low": 0.001, "high": 1.0, "log": True}, "/seed": {"values": [1, 2, 3]}}

    def draw(seed):
        config = given.PRETRAIN | {"optimizer": {"name": "sgd"}}
        sweep = start(config=config, space=space, search="random", trials=7, seed=seed).json()["id"]
        return [trial["params"] for trial in client.get(f"/sweeps/{sweep}/trials").json()["data"]]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(draw(3)) == 7


@on_sqlite
@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"space": {}}, "invalid_request", "/space"),
        ({"space": {"/method/temperatur": {"values": [1]}}}, "invalid_config", "/space/~1method~1temperatur"),
        ({"space": {"/method/temperature": {"values": [0.1, -1]}}}, "invalid_config", "/space/~1method~1temperature"),
        ({"space": {"temperature": {"values": [1]}}}, "invalid_request", "/space/temperature"),
        ({"space": {"/batch_size": {"values": [16, 101]}}}, "batch_too_large", "/space/~1batch_size"),
        ({"space": {"/epochs": {"low": 1, "high": 1}}}, "invalid_request", "/space/~1epochs"),
        ({"space": {"/epochs": {"low": 1, "high": 2.5}}}, "invalid_request", "/space/~1epochs"),
        ({"space": {"/batch_size/name": {"values": [1]}}}, "invalid_request", "/space/~1batch_size~1name"),
        ({"space": {"/seed": {"values": [*range(1001)]}}}, "invalid_request", "/space/~1seed/values"),
        ({"search": "random"}, "invalid_request", "/space"),
        ({"search": "bayes"}, "invalid_request", "/search"),
        ({"metric": "online/kn"}, "invalid_request", "/metric"),
        ({"metric": "knn/top1"}, "invalid_request", "/metric"),
        ({"kind": "project", "config": {}}, "invalid_request", "/metric"),
        (
            {"space": {"/seed": {"low": -1.7e308, "high": 1.7e308, "integer": True}}},
            "invalid_request",
            "/space/~1seed/low",
        ),
        (
            {"config": {"name": "x" * 900_000}, "space": {"/name/a": {"values": [1]}}},
            "invalid_request",
            "/space/~1name~1a",
        ),
        ({"pruner": {"name": "medain"}}, "invalid_request", "/pruner"),
        ({"pruner": {"name": "threshold"}}, "invalid_request", "/pruner"),
        ({"pruner": {"name": "median", "startup_trials": -1}}, "invalid_request", "/pruner/startup_trials"),
        ({"parallel": 0}, "invalid_request", "/parallel"),
        ({"config": {"epochs": "many"}}, "invalid_config", "/config/epochs"),
        ({"kind": "linear_eval", "config": {}, "space": {"/seed": {"values": [1]}}}, "model_needed", "/model"),
        ({"kind": "nothing"}, "unknown_kind", "/kind"),
    ],
)
def test_invalid_sweeps_are_refused_with_the_place(client, start, fields, code, pointer):
    answer = start(**fields)
    problem = check_problem(answer, 422, code)
    assert pointer in get_pointers(problem)
    assert client.get("/sweeps").json()["data"] == []


@on_sqlite
def test_the_fault_of_a_value_names_the_value(start):
    problem = start(space={"/method/temperature": {"values": [0.1, -7]}}).json()
    assert "The value is -7." in problem["detail"]


@on_sqlite
def test_the_metric_is_by_default_the_accuracy_of_the_kind(start):
    fields = {"kind": "supervised", "config": {"batch_size": 32}, "space": {"/seed": {"values": [1]}}}
    assert start(**fields).json()["metric"] == "online/top1"
    assert start(metric="train/loss").json()["goal"] == "minimize"


@on_sqlite
def test_a_missing_dataset_is_no_fault_of_the_space(start):
    check_problem(start(dataset="ds_x"), 404, "dataset_not_found")


@on_sqlite
def test_text_that_no_database_can_store_is_not_stored(client, start):
    """A field that every trial replaces is checked by none."""
    answer = start(config=given.PRETRAIN | {"seed": {"\x01": "\x02"}}, space={"/seed": {"values": [1, 2]}})
    sweep = check_body(schemas.Sweep, answer, 202)
    assert "\x01" not in str(client.get(f"/sweeps/{sweep['id']}").json())


@on_sqlite
def test_a_thousand_trials_are_checked_and_no_more(client, start):
    space = {"/seed": {"low": 1, "high": 1000, "integer": True}}
    assert start(space=space, parallel=100).json()["trials"] == 1000
    space["/seed"]["high"] = 1001
    assert "/space/~1seed" in get_pointers(check_problem(start(space=space), 422, "invalid_request"))

"""GET /leaderboard."""

import pytest

from api import schemas
from ssl_core import events
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PROTOCOL = "Logistic regression."


def read(client, dataset, **filters):
    return check_body(schemas.LeaderboardList, client.get("/leaderboard", params={"dataset": dataset, **filters}))[
        "data"
    ]


def linear(*accuracies, protocol=PROTOCOL):
    """The result of a linear evaluation: (labels, accuracy) of the model, and a baseline."""
    rows = [
        {"features": "model", "labels": labels, "top1": top1, "top1_interval": [top1 - 0.01, top1 + 0.01]}
        for labels, top1 in accuracies
    ]
    baseline = {"features": "pixels", "labels": accuracies[0][0], "top1": 0.99}
    return events.Result({"protocol": protocol, "results": [*rows, baseline], "top1": accuracies[-1][1]})


def test_models_are_ranked_among_those_of_the_same_protocol_and_number_of_labels(client, dataset, run_job, make_model):
    simclr, byol, dino = make_model("simclr"), make_model("byol", 200), make_model("dino")
    run_job(linear((10.0, 0.5), (100.0, 0.8)), kind="linear_eval", model=simclr)
    best = run_job(linear((10.0, 0.6), (100.0, 0.7)), kind="linear_eval", model=byol)
    run_job(linear((10.0, 0.5)), kind="linear_eval", model=dino)
    run_job(linear((10.0, 0.9), protocol="Another."), kind="linear_eval", model=dino)
    run_job(linear((10.0, 0.95)), kind="linear_eval", model=dino, ending="failed")
    groups = read(client, dataset, protocol="linear_eval")
    assert [
        (group["description"], group["labels"], [(entry["rank"], entry["method"]) for entry in group["entries"]])
        for group in groups
    ] == [
        (PROTOCOL, 100, [(1, "simclr"), (2, "byol")]),
        ("Another.", 10, [(1, "dino")]),
        (PROTOCOL, 10, [(1, "byol"), (2, "dino"), (2, "simclr")]),
    ]
    first = groups[2]["entries"][0]
    assert (first["top1"], first["top1_interval"], first["model"]) == (0.6, [0.59, 0.61], byol)
    assert (first["backbone"], first["epochs"], first["job"]) == ("resnet18", 200, best["id"])
    assert first["finished_at"] == best["finished_at"]
    assert [group["labels"] for group in read(client, dataset, labels=100)] == [100]
    assert [len(group["entries"]) for group in read(client, dataset, limit=1)] == [1, 1, 1]


def test_the_newest_evaluation_of_a_model_counts(client, dataset, run_job, make_model):
    model = make_model()
    for top1 in (0.9, 0.5):
        newest = run_job(linear((10.0, top1)), kind="linear_eval", model=model)
    ((entry,),) = [group["entries"] for group in read(client, dataset)]
    assert (entry["top1"], entry["job"]) == (0.5, newest["id"])


def test_every_kind_of_evaluation_is_ranked_and_filtered(client, dataset, run_job, make_model):
    model = make_model()
    knn = {
        "protocol": "kNN.",
        "results": [{"features": "model", "top1": 0.4, "top1_interval": [0.3, 0.5]}],
        "top1": 0.4,
    }
    run_job(events.Result(knn), kind="knn_eval", model=model)
    taught = {"protocol": "Its own classifier.", "labels": 50, "top1": 0.7, "top1_interval": None}
    card = {"method": None, "backbone": {"name": "resnet18"}}
    run_job(given.model(**card), events.Result(taught), kind="supervised")
    run_job(given.model(**card), events.Result({"protocol": "x", "labels": 50, "top1": None}), kind="supervised")
    found = read(client, dataset)
    assert [(group["protocol"], group["labels"]) for group in found] == [("supervised", 50), ("knn_eval", None)]
    assert found[1]["entries"][0]["model"] == model
    assert found[0]["entries"][0]["model"] != model
    assert [group["protocol"] for group in read(client, dataset, protocol="knn_eval")] == ["knn_eval"]
    for job in client.get("/jobs", params={"kind": "knn_eval"}).json()["data"]:
        client.delete(f"/jobs/{job['id']}")
    assert read(client, dataset, protocol="knn_eval") == []


def test_deleted_models_are_left_out(client, dataset, run_job, make_model):
    model = make_model()
    run_job(linear((10.0, 0.5)), kind="linear_eval", model=model)
    assert len(read(client, dataset)) == 1
    assert client.delete(f"/models/{model}").status_code == 204
    assert read(client, dataset) == []


def test_the_datasets_of_others_and_unknown_protocols_are_refused(client, other, dataset):
    check_problem(other.get("/leaderboard", params={"dataset": dataset}), 404, "dataset_not_found")
    check_problem(client.get("/leaderboard", params={"dataset": "ds_x"}), 404, "dataset_not_found")
    answer = client.get("/leaderboard", params={"dataset": dataset, "protocol": "linear"})
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["protocol"]
    check_problem(client.get("/leaderboard"), 422, "invalid_request")

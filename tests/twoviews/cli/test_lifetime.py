"""Commands that compare, name and delete, and those of the catalogue, against a real API without workers."""

import json

import pytest

from ssl_core import events
from tests.service import given
from tests.twoviews.cli.output import lines


@pytest.fixture
def train(database, run, dataset):
    """Return a function that runs a job to its end, and returns its id."""

    def train_one(name, temperature):
        words = ("--set", "method.name=simclr", "--set", f"method.temperature={temperature}", "--set", "batch_size=32")
        job = json.loads(run("jobs", "submit", "pretrain", dataset, "--name", name, *words, "--json").stdout)
        claim = given.claim_job(database)
        card = {
            "method": "simclr",
            "backbone": {"name": "resnet18"},
            "layers": {"backbone": 64},
            "metrics": {"knn": 0.5},
        }
        points = given.metrics(7, **{"train/loss": 1.25})
        given.record_events(database, claim, points, given.model(**card), events.Result({"loss": 1.25, "ok": True}))
        given.finish_job(database, claim)
        return job["id"]

    return train_one


def test_jobs_are_compared_in_columns(run, train):
    first, second = train("cold", 0.1), train("warm", 0.5)
    rows = lines(run("jobs", "compare", first, second))
    assert rows[0] == ["cold", "warm"]
    for row in (["id", first, second], ["/method/temperature", "0.1", "0.5"], ["train/loss", "1.25", "1.25"]):
        assert row in rows
    assert ["ok", "true", "true"] in rows
    found = json.loads(run("jobs", "compare", first, second, "--metric", "train/loss", "--json").stdout)
    assert [job["id"] for job in found["jobs"]] == [first, second]
    refused = run("jobs", "compare", first, "job_x")
    assert (refused.exit_code, "There is no job job_x." in refused.stderr) == (3, True)


def test_a_model_is_named_shown_and_deleted_and_then_its_job(run, train):
    job = train("cold", 0.1)
    assert lines(run("models", "alias", "prod", job))[1][0] == "prod"
    shown = lines(run("models", "show", "prod"))
    assert ["aliases", "prod"] in shown
    assert ["layers", "backbone", "64"] in shown
    assert "prod" in run("models", "list").stdout
    model = json.loads(run("models", "show", "prod", "--json").stdout)["id"]
    assert json.loads(run("models", "alias", "--json").stdout)[0]["model"] == model
    refused = run("models", "delete", model)
    assert (refused.exit_code, "alias prod" in refused.stderr) == (2, True)
    refused = run("jobs", "delete", job)
    assert (refused.exit_code, "delete the model first" in refused.stderr) == (2, True)
    assert "prod is deleted" in run("models", "alias", "--delete", "prod").stdout
    assert "No aliases yet" in run("models", "alias").stdout
    assert "No such alias" in run("models", "alias", "prod").stdout
    assert json.loads(run("models", "delete", model, "--json").stdout) == {"id": model, "deleted": True}
    assert f"{job} is deleted" in run("jobs", "delete", job).stdout
    assert run("jobs", "delete", job).exit_code == 3


def test_a_dataset_is_deleted(run, dataset):
    assert f"{dataset} is deleted" in run("datasets", "delete", dataset).stdout
    assert run("datasets", "show", dataset).exit_code == 3


def test_the_leaderboard_is_a_table_for_each_group(run, train, database, dataset):
    assert "No evaluations of this dataset yet" in run("leaderboard", dataset).stdout
    job = train("cold", 0.1)
    run("jobs", "submit", "linear_eval", dataset, "--model", job)
    row = {"features": "model", "labels": 10.0, "top1": 0.875, "top1_interval": [0.85, 0.9]}
    claim = given.claim_job(database)
    given.record_events(database, claim, events.Result({"protocol": "Logistic regression.", "results": [row]}))
    given.finish_job(database, claim)
    text = run("leaderboard", dataset, "--protocol", "linear_eval").stdout
    assert "linear_eval · 10 labels" in text
    assert "Logistic regression." in text
    assert "87.5 %  85.0 % to 90.0 %" in text
    assert json.loads(run("leaderboard", dataset, "--json").stdout)[0]["entries"][0]["rank"] == 1
    assert run("leaderboard", dataset, "--protocol", "nothing").exit_code == 2


def test_methods_and_recipes_are_listed_and_shown(run):
    assert {"simclr", "byol", "vicreg"} <= {row[0] for row in lines(run("methods"))}
    assert '"temperature"' in run("methods", "simclr").stdout
    assert "simclr-cpu" in run("recipes").stdout
    shown = run("recipes", "simclr-cpu").stdout
    assert "arXiv:2002.05709" in shown
    assert '"method"' in shown
    assert json.loads(run("recipes", "--json").stdout)[0]["config"]
    refused = run("methods", "simclear")
    assert (refused.exit_code, "There is no simclear" in refused.stderr) == (2, True)

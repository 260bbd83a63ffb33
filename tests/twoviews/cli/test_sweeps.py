"""`twoviews sweeps` against a real API; the keeper's part is done here."""

import json

import pytest

from service.sweeps import progress
from ssl_core import events
from tests.service import given
from tests.twoviews.cli.output import lines
from twoviews import SweepFailed
from twoviews.cli import sweep_space
from worker.sweeps import pruning


@pytest.fixture
def finish(database, settings):
    """Return a function that runs the next trials of a sweep, which report these values."""

    def advance(sweep):
        with database.writing() as session:
            progress.advance(session, sweep, settings, pruning.prune)

    def run_trials(sweep, *values):
        for value in values:
            advance(sweep)
            claim = given.claim_job(database)
            given.record_events(database, claim, events.Metrics(10, 1.0, 1.0, {"online/knn": value}))
            given.finish_job(database, claim)
        advance(sweep)

    return run_trials


SMALL = ("--set", "method.name=simclr", "--set", "batch_size=32")


def test_a_sweep_from_its_start_to_its_best_trial(run, dataset, finish):
    words = ("--vary", "method.temperature=0.1,0.5", "--vary", "seed=1..2:int", "--name", "temperatures")
    made = run("sweeps", "create", dataset, *SMALL, *words, "--pruner", "median", "--json")
    sweep = json.loads(made.stdout)
    assert sweep["space"] == {
        "/method/temperature": {"values": [0.1, 0.5]},
        "/seed": {"low": 1.0, "high": 2.0, "integer": True},
    }
    assert (sweep["trials"], sweep["pruner"]["name"], sweep["metric"]) == (4, "median", "online/knn")
    tuned = ("--kind", "supervised", "--set", "batch_size=32", "--vary", "seed=1,2", "--json")
    assert json.loads(run("sweeps", "create", dataset, *tuned).stdout)["metric"] == "online/top1"
    finish(sweep["id"], 0.25, 0.75, 0.5, 0.125)
    shown = lines(run("sweeps", "show", sweep["id"]))
    for row in (["status", "succeeded"], ["best", "0.75"], ["method.temperature", "0.1"], ["seed", "2"]):
        assert row in shown
    table = lines(run("sweeps", "trials", sweep["id"]))
    assert table[0] == ["trial", "state", "value", "method.temperature", "seed", "job"]
    assert [row[:5] for row in table[1:]] == [
        ["1", "succeeded", "0.75", "0.1", "2"],
        ["2", "succeeded", "0.5", "0.5", "1"],
        ["0", "succeeded", "0.25", "0.1", "1"],
        ["3", "succeeded", "0.125", "0.5", "2"],
    ]
    assert ["temperatures", "succeeded", "4", "of", "4", "online/knn", "0.75"] in [
        row[1:] for row in lines(run("sweeps", "list"))
    ]
    assert "4 of 4 trials have ended; best online/knn: 0.75" in run("sweeps", "watch", sweep["id"]).stdout


def test_a_sweep_is_paused_resumed_cancelled_and_deleted(run, dataset):
    words = ("--vary", "optimizer.lr=0.01..1:log", "--trials", "5", "--set", "optimizer.name=sgd")
    sweep = json.loads(run("sweeps", "create", dataset, *SMALL, *words, "--json").stdout)["id"]
    for verb, status in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert ["status", status] in lines(run("sweeps", verb, sweep))
    assert run("sweeps", "watch", sweep).exit_code == 1
    assert f"{sweep} is deleted" in run("sweeps", "delete", sweep).stdout
    assert run("sweeps", "show", sweep).exit_code == 3
    assert "No sweeps yet" in run("sweeps", "list").stdout


def test_the_client_waits_for_the_best_trial(client, dataset, finish, database):
    config = {"method": {"name": "simclr"}, "batch_size": 32}
    sweep = client.sweeps.create(dataset=dataset, config=config, space={"/seed": {"values": [1, 2]}}, parallel=1)
    finish(sweep.id, 0.5, 0.25)
    found = client.sweeps.wait(sweep)
    assert (found.done, found.best["params"]) == (True, {"/seed": 1})
    assert [trial["value"] for trial in client.sweeps.trials(found)] == [0.5, 0.25]
    assert [job.sweep for job in client.jobs.list(sweep=found)] == [sweep.id] * 2
    second = client.sweeps.create(dataset=dataset, config=config, space={"/seed": {"values": [1]}})
    client.sweeps.cancel(second)
    with pytest.raises(SweepFailed, match="is cancelled"):
        client.sweeps.wait(second)


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("a.b=0.1,0.2", {"/a/b": {"values": [0.1, 0.2]}}),
        ("a=[1, 2.5]", {"/a": {"values": [1, 2.5]}}),
        ("a=lars,sgd", {"/a": {"values": ["lars", "sgd"]}}),
        ('a=[{"name": "byol"}]', {"/a": {"values": [{"name": "byol"}]}}),
        ('a={"name": "a", "b": 1},{"name": "c"}', {"/a": {"values": [{"name": "a", "b": 1}, {"name": "c"}]}}),
        ("a=true", {"/a": {"values": [True]}}),
        ("a=0.01..1:log", {"/a": {"low": 0.01, "high": 1.0, "log": True}}),
        ("a=64..512:log:int:4", {"/a": {"low": 64.0, "high": 512.0, "log": True, "integer": True, "points": 4}}),
        ("a=-1..1:3", {"/a": {"low": -1.0, "high": 1.0, "points": 3}}),
    ],
)
def test_fields_values_and_ranges_are_read(option, choices):
    assert sweep_space.parse([option]) == choices


@pytest.mark.parametrize("options", [["a"], ["=1"], ["a="], ["a=1..x"], ["a=1..2:odd"], ["a=1", "a=2"]])
def test_what_cannot_be_read_is_an_error_with_an_example(run, dataset, options):
    with pytest.raises(ValueError, match=r"--vary|range"):
        sweep_space.parse(options)
    words = [word for option in options for word in ("--vary", option)]
    assert run("sweeps", "create", dataset, *SMALL, *words).exit_code == 2

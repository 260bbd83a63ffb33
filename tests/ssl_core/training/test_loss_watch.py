"""The warning of a loss that explodes without becoming NaN."""

import json

import pytest

from ssl_core import config
from ssl_core.events import Log, Metrics, Result
from ssl_core.inputs import Inputs
from ssl_core.methods import METHODS
from ssl_core.run import run
from ssl_core.training.loss_watch import LossWatch
from tests.ssl_core.digits import pack_digits
from tests.ssl_core.training.test_resume import HEADS, ITS_OWN, TINY


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return pack_digits(tmp_path_factory.mktemp("digits"))


def watch(losses, watched=None):
    watched = watched or LossWatch()
    found = [watched.update(step, loss, 0.1) for step, loss in enumerate(losses, 1)]
    return [log for log in found if log is not None]


def fall(start, end, count=40):
    return [end + (start - end) * 0.9**step for step in range(count)]


HEALTHY = {
    "NT-Xent": fall(6.2, 4.9),
    "SimSiam": fall(-0.1, -0.95),
    "BYOL, which rises first": [*fall(0.05, 0.01), *fall(0.4, 1.9), *fall(1.9, 0.3)],
    "MoCo, whose queue fills": [*fall(0.5, 8.4), *fall(8.4, 6.5)],
    "Barlow Twins": fall(2048, 60),
    "VICReg": fall(40, 22),
    "cross-entropy with outliers": [0.02 if step % 7 else 14.0 for step in range(100)],
    "memorised labels": [*fall(2.3, 1e-4), *fall(1e-4, 3.0)],
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_loss_is_not_reported(name):
    assert watch(HEALTHY[name]) == []


@pytest.mark.parametrize(
    "losses",
    [
        [*fall(2.3, 1.0), *[40.0 * 1.3**step for step in range(40)]],
        [*fall(2000, 50), *fall(50, 900)],
        [25.0 * 1.2**step for step in range(40)],
        [*fall(-0.1, -0.9), *[100.0] * 6],
    ],
)
def test_an_explosion_is_reported_once_with_its_evidence(losses):
    (log,) = watch(losses)
    assert (log.level, log.code) == ("warning", "diverging")
    assert log.data["loss"] > log.data["best"] + 10
    assert (log.data["lr"], log.data["step"] > 5) == (0.1, True)


@pytest.mark.parametrize("cut", [3, 40, 44, 46, 60])
def test_a_resumed_watch_reports_as_one_that_was_not_interrupted(cut):
    losses = [*fall(2.3, 1.0), *[50.0] * 30]
    first, second = LossWatch(), LossWatch()
    before = watch(losses[:cut], first)
    second.load(json.loads(json.dumps(first.state())))
    found = [second.update(step, loss, 0.1) for step, loss in enumerate(losses[cut:], cut + 1)]
    assert [*before, *filter(None, found)] == watch(losses)


def train(digits, folder, kind="pretrain", **fields):
    folder.mkdir()
    asked = config.parse({**TINY, "evaluation": {"every_epochs": 0}, **fields}, kind)
    return list(run(asked, Inputs(digits), folder))


def test_a_run_with_a_far_too_high_learning_rate_warns_and_ends(digits, tmp_path):
    optimizer = {"name": "sgd", "lr": 200.0, "momentum": 0.9}
    events = train(digits, tmp_path / "run", "supervised", optimizer=optimizer, schedule={"warmup_epochs": 0})
    losses = [event.values["train/loss"] for event in events if isinstance(event, Metrics)]
    (log,) = (event for event in events if isinstance(event, Log) and event.code == "diverging")
    assert log.data["loss"] > 3 * log.data["first"]
    assert all(loss is not None for loss in losses)
    assert isinstance(events[-1], Result)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_warns_with_its_defaults(name, digits, tmp_path):
    events = train(digits, tmp_path / "run", method={"name": name, **HEADS, **ITS_OWN.get(name, {})})
    assert not [event for event in events if isinstance(event, Log) and event.code == "diverging"]

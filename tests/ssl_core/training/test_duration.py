"""The duration: how a length in minutes is divided into steps and evaluations; test_run.py measures a real run."""

import pytest

from ssl_core import config
from ssl_core.data.dataset import Dataset
from ssl_core.device import Device
from ssl_core.training import duration
from ssl_core.training.resolve import Length, resolve
from ssl_core.training.training_data import TrainingData
from tests.ssl_core.digits import TINY, pack_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Images of which ten steps make an epoch."""
    return Dataset.open(pack_digits(tmp_path_factory.mktemp("digits"), train=160))


def measured(digits, minutes, every_epochs):
    """The length that is measured for a run of so many minutes."""
    open_length = {name: value for name, value in TINY.items() if name not in ("epochs", "evaluation")}
    asked = open_length | {"minutes": minutes, "evaluation": {"every_epochs": every_epochs}}
    resolved = resolve(config.parse({"method": {"name": "simclr"}} | asked), digits.report, Device("cpu", False))
    return duration.measure(resolved, TrainingData.of(digits, resolved))


class Clock:
    """Shows the time that steps and evaluations of our choice take."""

    def __init__(self, monkeypatch, step, evaluation):
        self.now, self.least_seconds, self._step, self._evaluation = 0.0, [], step, evaluation
        monkeypatch.setattr(duration.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(duration, "_step_seconds", self.steps)
        monkeypatch.setattr(duration, "_evaluation_seconds", self.evaluation)

    def steps(self, resolved, data, least_seconds):
        self.least_seconds.append(least_seconds)
        self.now += 4.0
        return self._step

    def evaluation(self, resolved, data):
        self.now += self._evaluation
        return self._evaluation


@pytest.mark.parametrize(
    ("every", "evaluation", "length"),
    [
        ("auto", 0.1, Length(55, 8)),  # 60 - 4.1 - 0.8
        ("auto", 1.0, Length(52, 3)),  # 60 - 5 - 3: more would take too large a share
        ("auto", 10.0, Length(36, 1)),
        (0, 0.0, Length(56)),
        (1, 1.0, Length(27)),
        (2, 1.0, Length(36)),
    ],
)
def test_a_minute_is_spent_on_measuring_steps_and_evaluations(digits, every, evaluation, length, monkeypatch):
    Clock(monkeypatch, 0.1, evaluation)
    assert measured(digits, 1.0, every) == length


def test_a_longer_run_is_measured_for_longer(digits, monkeypatch):
    clock = Clock(monkeypatch, 1.0, 0.0)
    for minutes in (1.0, 10.0, 1000.0):
        measured(digits, minutes, 0)
    assert clock.least_seconds == [pytest.approx(0.3), pytest.approx(3.0), 10.0]


def test_there_is_always_an_epoch(digits, monkeypatch):
    Clock(monkeypatch, 100.0, 50.0)
    assert measured(digits, 0.01, "auto") == Length(1, 1)

"""The pace: how a length in minutes is shared by steps and evaluations; test_run.py has it measured on real images."""

import pytest

from ssl_core import config
from ssl_core.data.dataset import Dataset
from ssl_core.device import Device
from ssl_core.training import duration
from ssl_core.training.resolve import Length, resolve
from ssl_core.training.training_data import TrainingData
from tests.ssl_core.digits import TINY, pack_digits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A resolved config, and its images: ten steps make an epoch."""
    digits = Dataset.open(pack_digits(tmp_path_factory.mktemp("digits"), train=160))
    resolved = resolve(config.parse({"method": {"name": "simclr"}, **TINY}), digits.report, Device("cpu", False))
    return resolved, TrainingData.of(digits, resolved)


class Clock:
    """Shows the time that steps and evaluations of our choice take."""

    def __init__(self, monkeypatch, step, evaluation):
        self.now, self.patience, self._step, self._evaluation = 0.0, [], step, evaluation
        monkeypatch.setattr(duration.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(duration, "_step_seconds", self.steps)
        monkeypatch.setattr(duration, "_evaluation_seconds", self.evaluation)

    def steps(self, resolved, data, patience):
        self.patience.append(patience)
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
def test_a_minute_is_spent_on_measuring_steps_and_evaluations(run, every, evaluation, length, monkeypatch):
    Clock(monkeypatch, 0.1, evaluation)
    assert duration.length_in(1.0, run[0], every, run[1]) == length


def test_a_longer_run_is_measured_for_longer(run, monkeypatch):
    clock = Clock(monkeypatch, 1.0, 0.0)
    for minutes in (1.0, 10.0, 1000.0):
        duration.length_in(minutes, run[0], 0, run[1])
    assert clock.patience == [pytest.approx(0.3), pytest.approx(3.0), 10.0]


def test_there_is_always_an_epoch(run, monkeypatch):
    Clock(monkeypatch, 100.0, 50.0)
    assert duration.length_in(0.01, run[0], "auto", run[1]) == Length(1, 1)

"""The pace: how a length in minutes is shared by steps and evaluations; test_run.py has it measured on real images."""

import pytest

from ssl_core import config, pace
from ssl_core.data import Dataset
from ssl_core.machine import Machine
from ssl_core.material import Material
from ssl_core.resolve import resolve
from tests.ssl_core.digits import TINY, pack_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return Dataset.open(pack_digits(tmp_path_factory.mktemp("digits"), train=160))


@pytest.mark.parametrize(("every", "epochs"), [("auto", 56), (0, 60), (1, 40), (2, 48)])
def test_a_minute_is_spent_on_steps_and_evaluations(every, epochs, digits, monkeypatch):
    monkeypatch.setattr(pace, "_step_seconds", lambda *_: 0.1)  # ten steps make an epoch
    monkeypatch.setattr(pace, "_evaluation_seconds", lambda *_: 0.5)
    settled = resolve(config.parse({"method": {"name": "simclr"}, **TINY}), digits.report, Machine("cpu", False))
    assert pace.epochs_in(1.0, settled, every, Material.of(digits, settled)) == epochs


def test_a_longer_run_is_measured_for_longer(digits, monkeypatch):
    patience = []
    monkeypatch.setattr(pace, "_step_seconds", lambda *given: patience.append(given[-1]) or 1.0)
    settled = resolve(config.parse({"method": {"name": "simclr"}, **TINY}), digits.report, Machine("cpu", False))
    for minutes in (1.0, 10.0, 1000.0):
        pace.epochs_in(minutes, settled, 0, Material.of(digits, settled))
    assert patience == [pytest.approx(0.3), pytest.approx(3.0), 10.0]

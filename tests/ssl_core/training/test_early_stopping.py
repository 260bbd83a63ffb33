"""Tests of the patience that may end a run early."""

import pytest

from ssl_core import config
from ssl_core.config import Pretrain
from ssl_core.errors import LabelsNeeded
from ssl_core.training.early_stopping import EarlyStopping


def patience(**fields) -> EarlyStopping:
    asked = config.parse({"method": {"name": "simclr"}, "early_stop": fields})
    assert isinstance(asked, Pretrain)
    return EarlyStopping(asked.early_stop, evaluated=False)


def lasts(found: EarlyStopping, *values: float) -> int | None:
    """After how many measurements, one an epoch, it is over."""
    for epoch, value in enumerate(values, 1):
        found.update({"train/rankme": value, "train/loss": 1.0}, epoch)
        if found.stopped:
            return epoch
    return None


def test_it_ends_after_so_many_measurements_without_a_new_best():
    assert lasts(patience(patience=2), 1, 2, 3, 3, 2.5, 9) == 5
    assert lasts(patience(patience=2), 1, 2, 1, 3, 2, 4) is None


def test_it_does_not_end_before_the_least_epochs():
    assert lasts(patience(patience=1, min_epochs=4), 5, 4, 3, 2, 1) == 4
    assert lasts(patience(patience=1, min_epochs=4), 5, 4, 3, 6, 1) == 5


def test_a_rise_that_is_too_small_is_none():
    assert lasts(patience(patience=2, min_delta=0.5), 1, 1.4, 1.5, 9) == 3


def test_what_is_no_number_is_no_best():
    found = patience(patience=2)
    assert lasts(found, float("nan"), float("inf"), 1) == 2
    assert found.reason(7)[1]["best"] is None


def test_other_metrics_are_not_counted():
    found = patience(patience=1)
    for epoch in range(5):
        found.update({"train/loss": 1.0, "online/knn": 0.1}, epoch)
    assert not found.stopped


def test_it_goes_on_from_where_it_was():
    first, second = patience(patience=2), patience(patience=2)
    assert lasts(first, 3, 2) is None
    second.load(first.state())
    assert lasts(second, 2.5) == 1


def test_without_early_stop_it_never_ends():
    asked = config.parse({"method": {"name": "simclr"}})
    assert isinstance(asked, Pretrain)
    assert lasts(EarlyStopping(asked.early_stop, evaluated=False), *([1.0] * 100)) is None


def test_knn_needs_labels():
    with pytest.raises(LabelsNeeded, match="early_stop"):
        patience(metric="knn")

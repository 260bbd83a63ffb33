"""Metrics: each step is stored once, and a reader gets the shape of a curve whatever its length."""

import pytest

from service import metrics
from tests.service import given


@pytest.fixture
def claim(database, tenant):
    given.submitted(database, tenant, given.ready(database, tenant))
    return given.claimed(database)


def asked(database, claim, **options):
    with database.reading() as session:
        return metrics.query(session, given.seen(database, claim.job_id), **options)


def test_points_come_back_in_columns_by_name(database, claim):
    given.recorded(database, claim, given.metrics(0, loss=4.0, lr=0.1), given.metrics(1, loss=3.0, lr=0.2))
    assert asked(database, claim) == {
        "series": [
            {"name": "loss", "step": [0, 1], "epoch": [0.0, 0.1], "time": [1000.0, 1001.0], "value": [4.0, 3.0]},
            {"name": "lr", "step": [0, 1], "epoch": [0.0, 0.1], "time": [1000.0, 1001.0], "value": [0.1, 0.2]},
        ],
        "last": 4,
    }


def test_a_reader_who_sends_the_cursor_back_gets_only_what_is_new(database, claim):
    given.recorded(database, claim, given.metrics(0), given.metrics(1))
    last = asked(database, claim)["last"]
    assert asked(database, claim, after=last) == {"series": [], "last": last}
    given.recorded(database, claim, given.metrics(2))
    (series,) = asked(database, claim, after=last)["series"]
    assert series["step"] == [2]


def test_a_reader_sees_no_further_than_the_cursor_it_is_given(database, claim):
    given.recorded(database, claim, given.metrics(0), given.metrics(1))
    before = given.seen(database, claim.job_id)
    given.recorded(database, claim, given.metrics(2), given.metrics(3))
    with database.reading() as session:
        early = metrics.query(session, before)
    late = asked(database, claim, after=early["last"])
    assert early["series"][0]["step"] + late["series"][0]["step"] == [0, 1, 2, 3]


def test_a_replayed_step_is_dropped(database, claim):
    given.recorded(database, claim, *(given.metrics(step, loss=1.0) for step in range(5)))
    given.released(database, claim)
    again = given.claimed(database)
    given.recorded(database, again, *(given.metrics(step, loss=2.0, lr=0.1) for step in range(3, 8)))
    loss, lr = asked(database, claim)["series"]
    assert loss["step"] == list(range(8))
    assert loss["value"] == [1.0] * 5 + [2.0] * 3
    assert lr["step"] == list(range(3, 8))


def test_a_step_told_twice_in_one_batch_is_stored_once(database, claim):
    given.recorded(database, claim, given.metrics(1, loss=1.0), given.metrics(1, loss=2.0), given.metrics(0))
    (series,) = asked(database, claim)["series"]
    assert (series["step"], series["value"]) == ([1], [1.0])


def test_a_number_that_is_none_is_null(database, claim):
    values = {"a": None, "b": float("nan"), "c": float("inf"), "d": 1}
    given.recorded(database, claim, given.metrics(0, **values))
    assert [series["value"] for series in asked(database, claim)["series"]] == [[None], [None], [None], [1.0]]


def test_only_the_names_asked_for_come_back(database, claim):
    given.recorded(database, claim, given.metrics(0, a=1.0, b=2.0))
    found = asked(database, claim, names=["b", "nothing", "\x00"])
    assert [series["name"] for series in found["series"]] == ["b"]
    assert found["last"] == 2


def test_a_long_series_keeps_its_ends_and_is_evenly_thinned(database, claim):
    given.recorded(database, claim, *(given.metrics(step, a=float(step), b=0.0) for step in range(500)))
    for most in (2, 3, 10, 499):
        check_thinned(database, claim, most)


def check_thinned(database, claim, most):
    a, _ = asked(database, claim, max_points=most)["series"]
    assert len(a["step"]) == most
    assert (a["step"][0], a["step"][-1]) == (0, 499)
    assert a["value"] == [float(step) for step in a["step"]]
    gaps = [later - earlier for earlier, later in zip(a["step"], a["step"][1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_thinning_keeps_the_ends_of_what_is_new(database, claim):
    given.recorded(database, claim, *(given.metrics(step) for step in range(300)))
    (series,) = asked(database, claim, after=100, max_points=7)["series"]
    assert (series["step"][0], series["step"][-1], len(series["step"])) == (100, 299, 7)


def test_a_series_with_few_points_is_whole_beside_a_long_one(database, claim):
    happened = [given.metrics(step, loss=1.0) for step in range(400)]
    happened[50] = given.metrics(50, loss=1.0, knn=0.5)
    happened[390] = given.metrics(390, loss=1.0, knn=0.6)
    given.recorded(database, claim, *happened)
    knn, loss = asked(database, claim, max_points=20)["series"]
    assert knn["step"] == [50, 390]
    assert len(loss["step"]) == 20


def test_points_that_come_unevenly_are_thinned_too(database, claim):
    given.recorded(database, claim, *(given.metrics(step, rare=1.0) for step in range(100)))
    given.recorded(database, claim, *(given.metrics(step, often=1.0) for step in range(2000)))
    given.recorded(database, claim, *(given.metrics(step, rare=1.0) for step in range(100, 200)))
    often, rare = asked(database, claim, max_points=50)["series"]
    assert len(often["step"]) == 50
    assert (rare["step"][0], rare["step"][-1]) == (0, 199)
    assert len(rare["step"]) <= 50


def test_a_cursor_from_elsewhere_gets_nothing_and_the_right_cursor(database, claim):
    given.recorded(database, claim, given.metrics(0))
    assert asked(database, claim, after=2**70) == {"series": [], "last": 1}


def test_an_empty_job_has_no_series(database, claim):
    assert asked(database, claim) == {"series": [], "last": 0}

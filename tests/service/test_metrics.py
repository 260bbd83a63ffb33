"""Metrics: points are stored once, and long series are thinned."""

import pytest

from service import metrics
from tests.service import given


@pytest.fixture
def claim(database, tenant):
    given.submit_job(database, tenant, given.create_ready_dataset(database, tenant))
    return given.claim_job(database)


def query_points(database, claim, **options):
    with database.reading() as session:
        return metrics.query(session, given.get_job(database, claim.job_id), **options)


def test_points_are_returned_in_columns(database, claim):
    given.record_events(database, claim, given.metrics(0, loss=4.0, lr=0.1), given.metrics(1, loss=3.0, lr=0.2))
    assert query_points(database, claim) == {
        "series": [
            {"name": "loss", "step": [0, 1], "epoch": [0.0, 0.1], "time": [1000.0, 1001.0], "value": [4.0, 3.0]},
            {"name": "lr", "step": [0, 1], "epoch": [0.0, 0.1], "time": [1000.0, 1001.0], "value": [0.1, 0.2]},
        ],
        "last": 4,
    }


def test_cursor_returns_new_points_only(database, claim):
    given.record_events(database, claim, given.metrics(0), given.metrics(1))
    last = query_points(database, claim)["last"]
    assert query_points(database, claim, after=last) == {"series": [], "last": last}
    given.record_events(database, claim, given.metrics(2))
    (series,) = query_points(database, claim, after=last)["series"]
    assert series["step"] == [2]


def test_points_end_at_the_returned_cursor(database, claim):
    given.record_events(database, claim, given.metrics(0), given.metrics(1))
    before = given.get_job(database, claim.job_id)
    given.record_events(database, claim, given.metrics(2), given.metrics(3))
    with database.reading() as session:
        early = metrics.query(session, before)
    late = query_points(database, claim, after=early["last"])
    assert early["series"][0]["step"] + late["series"][0]["step"] == [0, 1, 2, 3]


def test_replayed_step_is_dropped(database, claim):
    given.record_events(database, claim, *(given.metrics(step, loss=1.0) for step in range(5)))
    given.release_job(database, claim)
    again = given.claim_job(database)
    given.record_events(database, again, *(given.metrics(step, loss=2.0, lr=0.1) for step in range(3, 8)))
    loss, lr = query_points(database, claim)["series"]
    assert loss["step"] == list(range(8))
    assert loss["value"] == [1.0] * 5 + [2.0] * 3
    assert lr["step"] == list(range(3, 8))


def test_duplicate_step_in_one_batch_is_stored_once(database, claim):
    given.record_events(database, claim, given.metrics(1, loss=1.0), given.metrics(1, loss=2.0), given.metrics(0))
    (series,) = query_points(database, claim)["series"]
    assert (series["step"], series["value"]) == ([1], [1.0])


def test_non_finite_value_is_null(database, claim):
    values = {"a": None, "b": float("nan"), "c": float("inf"), "d": 1}
    given.record_events(database, claim, given.metrics(0, **values))
    assert [series["value"] for series in query_points(database, claim)["series"]] == [[None], [None], [None], [1.0]]


def test_series_are_selected_by_name(database, claim):
    given.record_events(database, claim, given.metrics(0, a=1.0, b=2.0))
    found = query_points(database, claim, names=["b", "nothing", "\x00"])
    assert [series["name"] for series in found["series"]] == ["b"]
    assert found["last"] == 2


def test_long_series_is_thinned_evenly(database, claim):
    given.record_events(database, claim, *(given.metrics(step, a=float(step), b=0.0) for step in range(500)))
    for max_points in (2, 3, 10, 499):
        check_thinned(database, claim, max_points)


def check_thinned(database, claim, max_points):
    a, _ = query_points(database, claim, max_points=max_points)["series"]
    assert len(a["step"]) == max_points
    assert (a["step"][0], a["step"][-1]) == (0, 499)
    assert a["value"] == [float(step) for step in a["step"]]
    gaps = [later - earlier for earlier, later in zip(a["step"], a["step"][1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_thinning_after_a_cursor_keeps_the_ends(database, claim):
    given.record_events(database, claim, *(given.metrics(step) for step in range(300)))
    (series,) = query_points(database, claim, after=100, max_points=7)["series"]
    assert (series["step"][0], series["step"][-1], len(series["step"])) == (100, 299, 7)


def test_short_series_is_complete(database, claim):
    happened = [given.metrics(step, loss=1.0) for step in range(400)]
    happened[50] = given.metrics(50, loss=1.0, knn=0.5)
    happened[390] = given.metrics(390, loss=1.0, knn=0.6)
    given.record_events(database, claim, *happened)
    knn, loss = query_points(database, claim, max_points=20)["series"]
    assert knn["step"] == [50, 390]
    assert len(loss["step"]) == 20


def test_unevenly_logged_series_is_thinned(database, claim):
    given.record_events(database, claim, *(given.metrics(step, rare=1.0) for step in range(100)))
    given.record_events(database, claim, *(given.metrics(step, often=1.0) for step in range(2000)))
    given.record_events(database, claim, *(given.metrics(step, rare=1.0) for step in range(100, 200)))
    often, rare = query_points(database, claim, max_points=50)["series"]
    assert len(often["step"]) == 50
    assert (rare["step"][0], rare["step"][-1]) == (0, 199)
    assert len(rare["step"]) <= 50


def test_cursor_beyond_the_last_point_is_corrected(database, claim):
    given.record_events(database, claim, given.metrics(0))
    assert query_points(database, claim, after=2**70) == {"series": [], "last": 1}


def test_job_without_points_has_no_series(database, claim):
    assert query_points(database, claim) == {"series": [], "last": 0}


@pytest.mark.parametrize("names", [None, ("a",), ("rare", "b"), ("rare",), ("absent",), ()])
def test_pages_have_each_point_once_in_the_order_of_seq(database, claim, names):
    batches = [given.metrics(step, a=float(step), b=None) for step in range(20)]
    given.record_events(database, claim, *batches, given.metrics(20, rare=0.5), given.metrics(21, a=21.0))
    found, after, most = [], 0, 0
    with database.reading() as session:
        while after < 42:
            page = metrics.list_points(session, claim.job_id, names, after, 42, limit=7)
            assert page.last > after
            found, after, most = [*found, *page.points], page.last, max(most, len(page.points))
        columns = metrics.query(session, given.get_job(database, claim.job_id), names)["series"]
    assert most <= 7
    assert [point.seq for point in found] == sorted({point.seq for point in found})
    assert metrics.Page(found, 42).to_columns() == {"series": columns, "last": 42}


def test_a_page_of_a_rare_series_begins_at_its_next_point(database, claim):
    given.record_events(database, claim, *(given.metrics(step, a=1.0) for step in range(50)), given.metrics(50, b=2.0))
    with database.reading() as session:
        (point,) = metrics.list_points(session, claim.job_id, ("b",), 3, 51, limit=10).points
        assert point == ("b", 50, 5.0, 1050.0, 2.0, 51)
        assert metrics.list_points(session, claim.job_id, ("b",), 3, 50, limit=10) == metrics.Page([], 50)

"""Selections: k-centre greedy beside the definition, with the radius that it promises."""

import numpy as np
import pytest

from tests.worker.encoder.search.test_nearest import draw
from worker.encoder.search import coverage
from worker.encoder.search.coverage import select

NOTHING = np.empty(0, np.int64)


def choose_naively(vectors, candidates, count, covered, start):
    """Return rows and radii, with all distances in one matrix of float64."""
    distances = 1 - vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    rows, taken, radii = [int(row) for row in np.flatnonzero(candidates)], [int(row) for row in covered], []
    picked = []
    while len(picked) < min(count, len(rows)):
        left = [row for row in rows if row not in picked]
        farthest = max(left, key=lambda row: (distances[row, taken].min() if taken else 0, -row))
        row = start if start is not None and not picked else farthest
        picked.append(row)
        taken.append(row)
        rest = [other for other in rows if other not in picked]
        radii.append(max((distances[other, taken].min() for other in rest), default=0))
    return picked, radii


@pytest.mark.parametrize("chunk_bytes", [4 * 150 * 3, 2**26])
@pytest.mark.parametrize(
    ("candidates", "covered", "start"),
    [
        (np.ones(150, bool), NOTHING, 40),
        (np.arange(150) % 3 == 0, NOTHING, 30),
        (np.arange(150) % 3 == 0, np.flatnonzero(np.arange(150) % 3 == 1), None),
        (np.arange(150) > 100, np.arange(20), 120),
    ],
)
def test_each_row_is_the_farthest_from_all_before(monkeypatch, chunk_bytes, candidates, covered, start):
    monkeypatch.setattr(coverage, "_CHUNK_BYTES", chunk_bytes)
    vectors = draw(150, 8)
    found = select(vectors, candidates, 30, covered, start)
    rows, radii = choose_naively(vectors, candidates, 30, covered, start)
    assert found.rows.tolist() == rows
    np.testing.assert_allclose(found.radii, radii, atol=2e-6)
    assert (np.diff(found.radii) <= 1e-6).all()


def test_all_candidates_are_taken_at_the_end_with_radius_zero():
    vectors, candidates = draw(20, 4), np.arange(20) < 7
    found = select(vectors, candidates, 50, NOTHING, 3)
    assert sorted(found.rows) == [*range(7)]
    assert found.radii[-1] == 0


def test_nothing_is_selected_of_nothing():
    assert len(select(draw(5, 3), np.zeros(5, bool), 3, NOTHING).rows) == 0


def test_copies_are_taken_last():
    vectors = draw(12, 6)
    vectors[6:] = vectors[:6]
    found = select(vectors, np.ones(12, bool), 12, NOTHING, 0)
    assert len({int(row) % 6 for row in found.rows[:6]}) == 6
    np.testing.assert_allclose(found.radii[5:], 0, atol=1e-6)

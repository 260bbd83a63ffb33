"""Nearest neighbours, exact and by inverted lists, beside sorting all similarities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.encoder.search import inverted_lists, nearest
from worker.encoder.search.inverted_lists import InvertedLists, count_lists, draw_rows
from worker.encoder.search.nearest import NONE, find_nearest, measure_recall, normalise


def draw(count: int, dim: int, seed: int = 0, clusters: int = 50) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    return normalise(centres[rng.integers(0, clusters, count)] + 0.5 * rng.standard_normal((count, dim)))


def sort_all(vectors, queries, k, allowed=None, own=None):
    """Return the k nearest rows of each query by sorting all similarities, fewer where fewer are allowed."""
    found = []
    for number, query in enumerate(queries):
        similarities = vectors.astype(np.float64) @ query.astype(np.float64)
        rows = [
            row
            for row in np.lexsort((np.arange(len(vectors)), -similarities))
            if (allowed is None or allowed[row]) and (own is None or row != own[number])
        ]
        found.append(rows[:k])
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 70), st.integers(0, 2**16), st.booleans(), st.booleans())
def test_the_nearest_are_those_of_sorting_all(count, dim, k, seed, filtered, without_self):
    rng = np.random.default_rng(seed)
    vectors = normalise(rng.standard_normal((count, dim)))
    own = rng.integers(0, count, 5)
    allowed = rng.random(count) < 0.5 if filtered else None
    rows, similarities = find_nearest(vectors, vectors[own], k, allowed, own if without_self else None)
    assert rows.shape == similarities.shape == (5, k)
    for line, values, query, expected in zip(
        rows, similarities, vectors[own], sort_all(vectors, vectors[own], k, allowed, own if without_self else None),
        strict=True,
    ):  # fmt: skip
        found = line[line != NONE]
        assert len(found) == len(expected) == len(set(found))
        np.testing.assert_allclose(values[: len(found)], vectors[found] @ query, atol=1e-6)
        np.testing.assert_allclose(values[: len(found)], vectors[expected] @ query, atol=1e-6)
        assert np.isneginf(values[len(found) :]).all()
        assert allowed is None or allowed[found].all()


def test_chunks_change_nothing(monkeypatch):
    vectors = draw(500, 12)
    whole = find_nearest(vectors, vectors, 7, own=np.arange(500))
    monkeypatch.setattr(nearest, "_CHUNK_BYTES", 4 * 500 * 9)
    parts = find_nearest(vectors, vectors, 7, own=np.arange(500))
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-6)


def test_equal_vectors_are_ordered_by_row():
    vectors = normalise(np.ones((6, 3)))
    rows = find_nearest(vectors, vectors[:1], 5, own=np.array([0]))[0]
    assert rows.tolist() == [[1, 2, 3, 4, 5]]


def test_unit_length_of_numbers_that_overflow_float32_when_squared():
    found = normalise(np.array([[3e38, 4e38], [0, 0], [3e-30, 4e-30]]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0.6, 0.8]], atol=1e-6)


@pytest.fixture(scope="module")
def vectors():
    return draw(6000, 24)


@pytest.fixture(scope="module")
def lists(vectors):
    return InvertedLists.build(vectors, seed=3)


def test_a_tuned_search_reaches_its_recall_on_other_queries_too(vectors, lists):
    tuned = lists.tune(vectors, seed=3)
    assert 0.95 <= tuned.recall <= 1
    assert tuned.probes < len(lists) == count_lists(6000)
    own = draw_rows(6000, 300, seed=99)
    exact = find_nearest(vectors, vectors[own], 10, own=own)[0]
    assert measure_recall(lists.search(vectors, vectors[own], 10, own=own)[0], exact) > 0.93


def test_a_recall_that_needs_all_lists_is_reached_with_all_lists():
    spread = normalise(np.random.default_rng(0).standard_normal((400, 64)))
    lists = InvertedLists.build(spread, seed=0)
    assert lists.tune(spread, seed=0, recall=1.0).recall == 1


@pytest.mark.parametrize("few", [0, 20_000])
def test_similarities_are_exact_and_filters_hold(vectors, lists, monkeypatch, few):
    monkeypatch.setattr(inverted_lists, "_FEW_ALLOWED", few)
    lists.probes = len(lists)
    own, allowed = np.array([5, 77, 4000]), np.arange(6000) % 7 == 0
    rows, similarities = lists.search(vectors, vectors[own], 20, allowed, own)
    expected = find_nearest(vectors, vectors[own], 20, allowed, own)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_allclose(similarities, expected[1], atol=1e-6)
    two = np.zeros(6000, bool)
    two[[5, 9]] = True
    rows, similarities = lists.search(vectors, vectors[own], 3, two, own)
    assert rows[0].tolist() == [9, NONE, NONE]
    assert np.isneginf(similarities[0, 1:]).all()
    assert (lists.search(vectors, vectors[own], 3, np.zeros(6000, bool), own)[0] == NONE).all()


def test_few_allowed_rows_are_found_however_far_they_are(vectors, lists):
    lists.probes = 1
    allowed = np.zeros(6000, bool)
    allowed[:3] = True
    assert set(lists.search(vectors, -vectors[:1], 3, allowed)[0][0]) == {0, 1, 2}


def test_a_file_of_lists_searches_as_those_in_memory(vectors, lists, tmp_path):
    path = tmp_path / "lists.faiss"
    path.write_bytes(lists.serialise())
    lists.probes = 8
    opened = InvertedLists.open(path, 8)
    asked = (vectors, vectors[:50], 10)
    for one, other in zip(lists.search(*asked), opened.search(*asked), strict=True):
        np.testing.assert_array_equal(one, other)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(OSError, match="cannot be read"):
        InvertedLists.open(path, 8)


def test_the_same_seed_builds_the_same_lists(vectors, lists):
    assert bytes(InvertedLists.build(vectors, seed=3).serialise()) == bytes(lists.serialise())

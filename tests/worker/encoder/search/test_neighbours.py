"""The graph of neighbours, duplicates and outliers, beside comparing every pair."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from tests.worker.encoder.search.test_nearest import draw
from worker.encoder.search import neighbours
from worker.encoder.search.inverted_lists import InvertedLists
from worker.encoder.search.nearest import NONE, normalise
from worker.encoder.search.neighbours import K, build_graph, find_duplicates, find_outliers, measure_outliers


def graph_of(vectors, lists=None):
    parts = list(build_graph(vectors, lists))
    return np.concatenate([part.rows for part in parts]), np.concatenate([part.similarities for part in parts])


def list_pairs(vectors, threshold):
    """Return every pair of at least this similarity, the lower row first."""
    similarities = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    return {(i, j) for i, j in np.argwhere(similarities >= threshold) if i < j}


def test_the_graph_is_that_of_scikit_learn(monkeypatch):
    monkeypatch.setattr(neighbours, "_BUILT", 64)
    vectors = draw(300, 12)
    graph, similarities = graph_of(vectors)
    distances, _ = NearestNeighbors(n_neighbors=K, metric="cosine").fit(vectors).kneighbors()
    assert graph.shape == (300, K)
    np.testing.assert_allclose(1 - similarities, distances, atol=2e-6)
    assert (graph != np.arange(300)[:, None]).all()


def test_the_graph_by_inverted_lists_is_nearly_the_exact_one():
    vectors = draw(3000, 12)
    lists = InvertedLists.build(vectors, 0)
    lists.tune(vectors, 0)
    exact, found = graph_of(vectors)[0], graph_of(vectors, lists)[0]
    assert np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(exact[:, :10], found[:, :10], strict=True)]) > 0.95
    assert (found != np.arange(3000)[:, None]).all()


def test_duplicates_are_all_pairs_above_the_threshold(monkeypatch):
    monkeypatch.setattr(neighbours, "_READ", 50)
    vectors = draw(400, 6, clusters=120)
    graph, similarities = graph_of(vectors)
    expected = list_pairs(vectors, 0.97)
    found = find_duplicates(graph, similarities, 0.97, 1000)
    assert 20 < len(expected) == found.total
    assert {tuple(pair) for pair in found.rows} == expected
    assert (np.diff(found.similarities) <= 0).all()
    first = find_duplicates(graph, similarities, 0.97, 7)
    np.testing.assert_array_equal(first.rows, found.rows[:7])
    assert first.total == found.total


def test_the_first_of_equal_pairs_are_those_of_the_lowest_rows(monkeypatch):
    monkeypatch.setattr(neighbours, "_READ", 16)
    graph, similarities = graph_of(normalise(np.repeat(draw(30, 5), 4, axis=0)))
    similarities = np.round(similarities, 1)
    every = find_duplicates(graph, similarities, 0.2, 10**6)
    order = np.lexsort((every.rows[:, 1], every.rows[:, 0], -every.similarities))
    np.testing.assert_array_equal(order, np.arange(every.total))
    for limit in (1, 5, 100, 500):
        found = find_duplicates(graph, similarities, 0.2, limit)
        np.testing.assert_array_equal(found.rows, every.rows[:limit])
        assert found.total == every.total > 500


def test_listed_neighbours_are_counted_without_those_that_are_none(monkeypatch):
    monkeypatch.setattr(neighbours, "_READ", 2)
    similarities = graph_of(normalise(np.ones((5, 3))))[1]
    assert [neighbours.count_listed(similarities, threshold) for threshold in (0, 0.5, 1.5)] == [20, 20, 0]


def test_duplicates_between_splits_only():
    vectors = draw(200, 4, clusters=60)
    splits = (np.arange(200) % 3).astype(np.int8)
    graph, similarities = graph_of(vectors)
    found = find_duplicates(graph, similarities, 0.98, 1000, splits)
    expected = {(i, j) for i, j in list_pairs(vectors, 0.98) if splits[i] != splits[j]}
    assert expected
    assert {tuple(pair) for pair in found.rows} == expected


def test_of_very_many_copies_each_is_in_a_pair():
    vectors = normalise(np.ones((200, 5)))
    found = find_duplicates(*graph_of(vectors), 0.9999, 10**6)
    assert set(found.rows.flatten()) == set(range(200))
    assert len({tuple(pair) for pair in found.rows}) == len(found.rows) == found.total


@pytest.mark.parametrize("k", [1, 10, K])
def test_outliers_have_the_greatest_mean_distance(k):
    vectors = draw(300, 10)
    similarities = graph_of(vectors)[1]
    scores = measure_outliers(similarities, k)
    every = np.sort(1 - vectors @ vectors.T + 10 * np.eye(300), axis=1)[:, :k].mean(1)
    np.testing.assert_allclose(scores, every, atol=2e-6)
    rows, distances = find_outliers(similarities, k, 5)
    assert rows[0] == every.argmax()
    np.testing.assert_allclose(distances, np.sort(every)[::-1][:5], atol=2e-6)
    allowed = np.arange(300) < 10
    assert set(find_outliers(similarities, k, 50, allowed)[0]) == set(range(10))


def test_few_vectors_have_few_neighbours():
    graph, similarities = graph_of(normalise(np.eye(3)))
    assert (graph[:, 2:] == NONE).all()
    assert measure_outliers(similarities, 10).tolist() == [1, 1, 1]
    graph, similarities = graph_of(normalise(np.ones((1, 2))))
    assert (graph == NONE).all()
    assert find_duplicates(graph, similarities, 0, 10).total == 0
    assert measure_outliers(similarities, 10).tolist() == [0]

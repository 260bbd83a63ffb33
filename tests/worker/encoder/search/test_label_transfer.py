"""Label transfer beside the vote of kNN evaluation."""

import numpy as np
import torch

from ssl_core.evaluation.knn import compute_votes
from tests.worker.encoder.search.test_nearest import draw
from worker.encoder.search.label_transfer import transfer


def test_labels_are_those_of_knn_evaluation():
    vectors = draw(400, 10)
    labels = np.where(np.arange(400) % 4 == 0, -1, np.random.default_rng(1).integers(0, 6, 400)).astype(np.int32)
    rows, known = np.flatnonzero(labels < 0), labels >= 0
    found = transfer(vectors, labels, rows, k=15, temperature=0.2)
    train, classes = torch.from_numpy(vectors[known]), torch.from_numpy(labels[known]).long()
    votes = compute_votes(train, classes, torch.from_numpy(vectors[rows]), 6, 15, 0.2).numpy()
    np.testing.assert_array_equal(found.labels, votes.argmax(1))
    np.testing.assert_allclose(found.confidences, votes.max(1) / votes.sum(1), atol=1e-5)


def test_a_row_with_a_label_is_judged_by_the_others():
    vectors = draw(30, 5, clusters=1)
    labels = np.zeros(30, np.int32)
    labels[4] = 1
    found = transfer(vectors, labels, np.array([4, 5]), k=29, temperature=0.1)
    assert found.labels[0] == 0
    assert found.confidences[0] == 1
    assert found.confidences[1] < 1


def test_without_labels_there_is_no_answer():
    found = transfer(draw(5, 3), np.full(5, -1, np.int32), np.arange(5), 3, 0.1)
    assert found.labels.tolist() == [-1] * 5
    assert found.confidences.tolist() == [0] * 5
    assert len(transfer(draw(5, 3), np.zeros(5, np.int32), np.empty(0, np.int64), 3, 0.1).labels) == 0


def test_more_neighbours_than_there_are_and_a_small_temperature():
    vectors = draw(6, 3)
    labels = np.array([0, 1, 2, 0, 1, -1], np.int32)
    found = transfer(vectors, labels, np.array([5]), k=100, temperature=0.001)
    nearest = int((vectors[:5] @ vectors[5]).argmax())
    assert found.labels.tolist() == [labels[nearest]]

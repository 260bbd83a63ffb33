"""The kNN classifier against an unvectorised one."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ssl_core.evaluation import knn


def reference_vote(train, labels, features, classes, k, temperature):
    """The paper's equation, one row at a time, in NumPy."""
    predicted = []
    for feature in features:
        similarity = train @ feature / (np.linalg.norm(train, axis=1) * np.linalg.norm(feature))
        nearest = np.argsort(-similarity)[:k]
        votes = np.zeros(classes)
        for neighbour in nearest:
            votes[labels[neighbour]] += np.exp(similarity[neighbour] / temperature)
        predicted.append(votes.argmax())
    return np.array(predicted)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.1), (20, 0.07), (20, 1.0), (150, 0.1)])
def test_the_vote_equals_the_reference(k, temperature, monkeypatch):
    monkeypatch.setattr(knn, "_CHUNK_ROWS", 16)  # several chunks
    monkeypatch.setitem(knn._CHUNK_BYTES, "cpu", 1)
    generator = np.random.default_rng(0)
    train, features = generator.normal(size=(150, 8)), generator.normal(size=(70, 8))
    labels = generator.integers(0, 4, 150)
    votes = knn.compute_votes(
        *map(torch.from_numpy, (train, labels, features)), classes=4, k=k, temperature=temperature
    )
    assert votes.argmax(1).tolist() == reference_vote(train, labels, features, 4, k, temperature).tolist()


def clustered(count: int, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of 7 classes."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, width, generator=generator), torch.randint(7, (count,), generator=generator)


def vote_at_once(train, labels, features, classes, k, temperature):
    """The vote without chunks."""
    nearest = (F.normalize(features, dim=1) @ F.normalize(train, dim=1).T).topk(k, dim=1)
    weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
    return torch.zeros(len(features), classes).scatter_add_(1, labels[nearest.indices], weights)


def test_the_votes_of_chunks_are_those_of_one_matrix_product(monkeypatch):
    (train, labels), (features, _) = clustered(3_000), clustered(500)
    expected = vote_at_once(train, labels, features, 7, 50, 0.1)
    for rows in (64, 100, 499, 500):
        monkeypatch.setitem(knn._CHUNK_BYTES, "cpu", 4 * 3_000 * rows)
        torch.testing.assert_close(knn.compute_votes(train, labels, features, 7, 50, 0.1), expected)


def test_the_training_features_are_overwritten_only_if_that_is_asked_for():
    (train, labels), (features, _) = clustered(300), clustered(40)
    given = train.clone()
    votes = knn.compute_votes(train, labels, features, 7, 20, 0.1)
    assert torch.equal(train, given)
    assert torch.equal(knn.compute_votes(train, labels, features, 7, 20, 0.1, overwrite=True), votes)
    assert torch.equal(train, F.normalize(given, dim=1))


def test_k_is_limited_to_the_number_of_images():
    train, labels = torch.eye(3), torch.tensor([0, 1, 1])
    assert knn.compute_votes(train, labels, torch.tensor([[1.0, 0, 0]]), 2, k=200, temperature=10).argmax(
        1
    ).tolist() == [1]


def test_a_low_temperature_does_not_overflow():
    train, labels = torch.eye(2), torch.tensor([0, 1])
    assert knn.compute_votes(train, labels, torch.tensor([[0.1, 1]]), 2, k=2, temperature=1e-6).argmax(1).tolist() == [
        1
    ]


def test_top1_is_the_share_of_correct_votes():
    train, labels = torch.eye(2), torch.tensor([0, 1])
    features = torch.tensor([[1.0, 0], [0, 1], [1, 0.1], [0.9, 0]])
    assert knn.compute_top1(train, labels, features, torch.tensor([0, 1, 1, 0]), 2, k=1) == 0.75

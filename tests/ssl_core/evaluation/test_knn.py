"""The kNN classifier against an unvectorised one."""

import numpy as np
import pytest
import torch

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
    monkeypatch.setattr(knn, "_CHUNK_BYTES", 4 * 150 * 16)  # several chunks
    generator = np.random.default_rng(0)
    train, features = generator.normal(size=(150, 8)), generator.normal(size=(70, 8))
    labels = generator.integers(0, 4, 150)
    votes = knn.compute_votes(
        *map(torch.from_numpy, (train, labels, features)), classes=4, k=k, temperature=temperature
    )
    assert votes.argmax(1).tolist() == reference_vote(train, labels, features, 4, k, temperature).tolist()


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

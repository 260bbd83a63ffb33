"""Accuracy: ranks, bootstrap intervals, per-class accuracy and confusion matrix of known predictions."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_core.evaluation import accuracy

NAMES = ["cat", "dog", "owl"]


def one_hot_logits(*classes: int, count: int = 3) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), count).float()


def random_ranks(rate: float, count: int, seed: int = 0) -> Tensor:
    """Ranks, 1×N, of a classifier with that accuracy."""
    return torch.from_numpy((np.random.default_rng(seed).random((1, count)) >= rate).astype(np.int64))


def test_metrics_are_plain_json_values():
    found = accuracy.compute_metrics(one_hot_logits(0, 0, 1, 2), torch.tensor([0, 0, 0, 2]), NAMES, seed=0)
    assert json.loads(json.dumps(found)) == found
    assert found["top1"] == 0.75
    assert found["per_class"] == [
        {"name": "cat", "images": 3, "top1": 2 / 3},
        {"name": "dog", "images": 0, "top1": None},
        {"name": "owl", "images": 1, "top1": 1.0},
    ]
    assert found["confusion"] == [[2, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert "top5" not in found


def test_ranks_equal_those_of_a_sort():
    logits = torch.randn(200, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 9
    places = logits.argsort(1, descending=True)
    assert torch.equal(accuracy.compute_ranks(logits, labels), (places == labels[:, None]).int().argmax(1))
    found = accuracy.compute_metrics(logits, labels, [str(n) for n in range(9)], seed=0)
    in_five = (places[:, :5] == labels[:, None]).any(1)
    assert found["top5"] == pytest.approx(in_five.double().mean().item())
    assert found["top1"] == (logits.argmax(1) == labels).double().mean().item()


def test_ties_go_to_the_lower_class_and_nan_is_no_score():
    labels = torch.tensor([0, 1, 2])
    assert accuracy.compute_ranks(torch.zeros(3, 3), labels).tolist() == [0, 1, 2]
    nan = torch.full((3, 3), math.nan)
    assert accuracy.compute_ranks(nan, labels).tolist() == [3, 3, 3]
    assert accuracy.compute_ranks(torch.tensor([[1.0, -math.inf, 0]]).expand(3, 3), labels).tolist() == [0, 3, 1]
    found = accuracy.compute_metrics(nan, labels, NAMES, seed=0)
    assert found["top1"] == 0
    assert [row["top1"] for row in found["per_class"]] == [0, 0, 0]


@pytest.mark.parametrize(("rate", "count"), [(0.5, 400), (0.9, 1000), (0.7, 10_000)])
def test_the_interval_is_as_wide_as_that_of_a_binomial_proportion(rate, count):
    found = accuracy.compute_accuracy(random_ranks(rate, count), 3, seed=0)
    low, high = found["top1_interval"]
    half = 1.96 * math.sqrt(rate * (1 - rate) / count)
    assert low < found["top1"] < high
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_the_interval_covers_the_true_accuracy_in_about_95_percent_of_cases():
    covered = 0
    for seed in range(200):
        low, high = accuracy.compute_accuracy(random_ranks(0.8, 300, seed), 3, seed)["top1_interval"]
        covered += low <= 0.8 <= high
    assert 180 <= covered <= 199


def test_the_interval_is_determined_by_the_seed():
    one, same, other = (
        accuracy.compute_accuracy(random_ranks(0.8, 333), 3, seed)["top1_interval"] for seed in (0, 0, 1)
    )
    assert one == same != other


def test_variance_between_draws_widens_the_interval():
    # One half of the draws is always correct, the other never: all variance is between the draws.
    ranks = (torch.arange(10) % 2)[:, None].expand(10, 1000)
    low, high = accuracy.compute_accuracy(ranks, 3, seed=0)["top1_interval"]
    half = 1.96 * math.sqrt(0.25 / 10)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    equal = random_ranks(0.5, 1000).expand(10, 1000)
    assert accuracy.compute_accuracy(equal, 3, 0)["top1"] == accuracy.compute_accuracy(equal[:1], 3, 0)["top1"]
    low, high = accuracy.compute_accuracy(equal, 3, seed=0)["top1_interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 1000), rel=0.1)


def test_with_many_classes_the_confusion_matrix_is_omitted_with_a_message():
    for count, keys in ((100, {"per_class", "confusion"}), (101, {"per_class"}), (1001, set())):
        found = accuracy.compute_class_metrics(
            torch.zeros(2, count), torch.tensor([0, 1]), [str(n) for n in range(count)]
        )
        assert found.keys() - {"left_out"} == keys
        assert ("left_out" in found) == (count > 100)


def test_with_very_many_classes_no_confusion_matrix_is_computed():
    """Of 100,000 classes it would be 80 GB."""
    names = [str(number) for number in range(100_000)]
    found = accuracy.compute_class_metrics(torch.rand(2, 100_000), torch.tensor([5, 99_999]), names)
    assert found == {"left_out": "There are more than 1,000 classes: per-class accuracy is omitted."}


def test_test_images_of_classes_without_training_images_are_counted():
    training, test = torch.tensor([0, 1, 1]), torch.tensor([0, 2, 2, 3])
    (warning,) = accuracy.warn_of_unseen_classes(training, test, ["a", "b", "c", "d"])["warnings"]
    assert (warning["code"], warning["count"], warning["examples"]) == ("class_without_training_images", 3, ["c", "d"])
    assert "3 of 4 test images" in warning["detail"]
    assert accuracy.warn_of_unseen_classes(training, test[:1], ["a", "b"]) == {}

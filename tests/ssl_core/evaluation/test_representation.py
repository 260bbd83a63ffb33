"""Representation metrics of features with known values."""

import math

import numpy as np
import pytest
import torch

from ssl_core.evaluation import representation

CONSTANT = torch.tensor([0.3, -1.0, 2.0, 0.5]).expand(64, 4)


def gaussian(count: int = 2000, dim: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_std_of_a_uniform_sphere_is_one_at_every_scale():
    assert representation.feature_std(gaussian()) == pytest.approx(1, abs=0.02)
    assert representation.feature_std(7 * gaussian()) == pytest.approx(representation.feature_std(gaussian()))


def test_std_of_two_opposite_points_on_one_axis():
    features = torch.tensor([[1.0, 0], [-1, 0]])
    assert representation.feature_std(features) == pytest.approx(0.5 * math.sqrt(2))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rankme_of_equal_singular_values_is_their_number(rank):
    features = torch.linalg.qr(gaussian(50, 8)).Q[:, :rank] @ torch.eye(8)[:rank]
    assert representation.rankme(features) == pytest.approx(rank, rel=1e-5)


def test_rankme_of_unequal_singular_values():
    features = torch.diag(torch.tensor([3.0, 1.0]))
    assert representation.rankme(features) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def with_spectrum(values: torch.Tensor, count: int = 200) -> torch.Tensor:
    """N×D features, off the origin, whose covariance has those eigenvalues up to a common factor."""
    dim = len(values)
    raw = gaussian(count, dim).double()
    columns = torch.linalg.qr(raw - raw.mean(0)).Q  # orthonormal, each of mean 0
    turn = torch.linalg.qr(gaussian(dim, dim, seed=1).double()).Q
    return (columns * values.sqrt()) @ turn + 3


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("count", [200, 41])  # 41 centred images span as many dimensions as their 40 features
def test_alpha_is_the_exponent_of_a_spectrum_that_is_a_power_law(alpha, count):
    features = with_spectrum(torch.arange(1, 41, dtype=torch.float64) ** -alpha, count)
    assert representation.alpha_req(features) == pytest.approx(alpha, abs=1e-6)
    assert representation.alpha_req(1000 * features.float()) == pytest.approx(alpha, abs=1e-2)


def test_alpha_of_fewer_images_than_features_is_that_of_their_span():
    features = with_spectrum(torch.arange(1, 21, dtype=torch.float64) ** -1.0, 25)
    wide = features @ torch.linalg.qr(gaussian(100, 20, seed=2).double()).Q.T
    assert wide.shape == (25, 100)
    assert representation.alpha_req(wide) == pytest.approx(1, abs=1e-6)


def test_alpha_weighs_the_jth_eigenvalue_by_one_over_j():
    values = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    u, v, w = np.log([1, 2, 3]), np.log(values.numpy()), np.array([1, 1 / 2, 1 / 3])
    slope = np.polyfit(u, v, 1, w=np.sqrt(w))[0]
    assert representation.alpha_req(with_spectrum(values)) == pytest.approx(-slope, abs=1e-6)


def test_a_batch_is_measured_on_its_first_two_views():
    first, second, third = gaussian(64, 8), gaussian(64, 8) + 0.05, gaussian(32, 8, seed=3)
    found = representation.measure(torch.cat([first, second, third]), images=64)
    assert found["train/alignment"] == pytest.approx(representation.alignment(first, second))
    assert found["train/uniformity"] == pytest.approx(representation.uniformity(first))
    assert found["train/contrastive_top1"] == 1
    assert found["train/rankme"] == representation.rankme(torch.cat([first, second, third]))
    assert all(name.startswith("train/") for name in found)


def test_alignment_is_zero_for_equal_views_and_one_for_independent_ones():
    assert representation.alignment(gaussian(), gaussian()) == 0
    assert representation.alignment(gaussian(), gaussian(seed=1)) == pytest.approx(1, abs=0.02)


def test_alignment_is_the_ratio_of_positives_to_negatives():
    first = torch.eye(4)
    second = torch.nn.functional.normalize(
        first + first.roll(1, 0), dim=1
    )  # 45° from its positive and from one negative
    positives = 2 - math.sqrt(2)
    negatives = (positives + 2 * 2) / 3  # one at 45°, two at right angles
    assert representation.alignment(first, second) == pytest.approx(positives / negatives)


def test_uniformity_of_opposite_points():
    assert representation.uniformity(torch.tensor([[2.0, 0], [-1.0, 0]])) == pytest.approx(-8)


def test_uniformity_of_a_high_dimensional_sphere_approaches_minus_four():
    assert representation.uniformity(gaussian(dim=128)) == pytest.approx(-4, abs=0.1)


def test_contrastive_top1_counts_both_directions():
    first = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert representation.contrastive_top1(first, first) == 1
    second = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])  # two are exchanged
    assert representation.contrastive_top1(first, second) == pytest.approx(2 / 6)


def test_constant_features_have_the_worst_value_of_every_metric():
    normal, other = gaussian(64, 4), gaussian(64, 4) + 0.1
    assert representation.feature_std(CONSTANT) == pytest.approx(0, abs=1e-6)
    assert representation.rankme(CONSTANT) == pytest.approx(1, abs=1e-5)
    assert representation.alignment(CONSTANT, CONSTANT) == 1 > representation.alignment(normal, other)
    assert representation.uniformity(CONSTANT) == pytest.approx(0, abs=1e-9)
    assert representation.uniformity(normal) < 0
    assert representation.alpha_req(CONSTANT) == representation.WORST_ALPHA > representation.alpha_req(normal)
    assert representation.contrastive_top1(CONSTANT, CONSTANT) == 0


def test_nearly_constant_features_are_close_to_the_worst():
    first, second = CONSTANT + 1e-4 * gaussian(64, 4), CONSTANT + 1e-4 * gaussian(64, 4, seed=1)
    assert representation.alignment(first, second) > 0.8
    assert representation.contrastive_top1(first, second) < 0.1


def test_collapse_is_detected():
    assert representation.is_collapsed(representation.feature_std(CONSTANT), representation.rankme(CONSTANT))
    assert not representation.is_collapsed(representation.feature_std(gaussian()), representation.rankme(gaussian()))
    assert representation.is_collapsed(0.9, 1.01)
    assert representation.is_collapsed(math.nan, 20.0)


def test_zero_features_are_collapsed_and_raise_no_error():
    zeros = torch.zeros(8, 4)
    assert representation.is_collapsed(representation.feature_std(zeros), representation.rankme(zeros))
    assert representation.alignment(zeros, zeros) == 1
    assert representation.alpha_req(zeros) == representation.WORST_ALPHA

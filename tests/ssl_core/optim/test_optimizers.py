"""Optimizers and schedules against closed forms and a float64 transcription of google-research/simclr's LARS."""

import math

import numpy as np
import pytest
import torch

from ssl_core.config import LARS as LARSConfig
from ssl_core.config import SGD, AdamW, Backbone, Pretrain, Schedule
from ssl_core.methods.method import Method
from ssl_core.optim import optimizers, schedule
from ssl_core.optim.lars import LARS
from ssl_core.optim.muon import Muon, orthogonalise, orthogonalise_together


class Tiny(Method):
    """A method with one parameter of each kind."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.predictor = torch.nn.Linear(4, 2)

    def constant_lr(self):
        return (self.predictor,)


def reference_lars(w, grads, rates, *, momentum, trust, decay, adapt, classic, nesterov):
    """LARS in float64 on one tensor."""
    w, v = np.array(w, dtype=np.float64), 0.0

    def ratio(update):
        w_norm, norm = np.sqrt((w**2).sum()), np.sqrt((update**2).sum())
        return trust * w_norm / norm if adapt and w_norm > 0 and norm > 0 else 1.0

    for raw, lr in zip(grads, rates, strict=True):
        g = np.array(raw, dtype=np.float64) + decay * w
        if classic:
            scaled = lr * ratio(g) * g
            v = momentum * v + scaled
            w = w - (momentum * v + scaled if nesterov else v)
        else:
            v = momentum * v + g
            update = momentum * v + g if nesterov else v
            w = w - lr * ratio(update) * update
    return w


@pytest.mark.parametrize("classic", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_lars_equals_googles_for_fifty_steps_with_warm_up(classic, nesterov, adapt, decay):
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    grads = torch.randn(50, 4, 3, generator=generator, dtype=torch.float64)
    rates = [0.3 * step / 10 for step in range(1, 11)]
    rates += [0.15 * (1 + math.cos(math.pi * step / 40)) for step in range(40)]
    settings = {"momentum": 0.9, "trust": 0.01, "adapt": adapt, "nesterov": nesterov}
    expected = reference_lars(w.numpy(), grads.numpy(), rates, decay=decay, classic=classic, **settings)
    parameter = w.clone().requires_grad_()
    group = {"params": [parameter], "base_lr": 0.3, "constant_lr": False}
    lars = LARS([group], lr=0.3, weight_decay=decay, classic_momentum=classic, **settings)
    for step, grad in enumerate(grads):
        schedule.set_lr(lars, schedule.compute_lr_factor(Schedule(warmup_epochs=2.0), step, 50, steps_per_epoch=5))
        parameter.grad = grad.clone()
        lars.step()
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-10)


def reference_newton_schulz(x, steps):
    """The published iteration in float64, for any shape."""
    x = x / np.sqrt((x**2).sum())
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(5, 5), (4, 11), (11, 4), (1, 6), (6, 1)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_orthogonalise_is_the_published_iteration_for_any_shape(shape, steps):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = reference_newton_schulz(matrix.numpy(), steps)
    np.testing.assert_allclose(orthogonalise(matrix, steps).numpy(), expected, atol=1e-6)


SHAPES = [(27, 64), (64, 576), (64, 576), (128, 64), (576, 64), (64, 64), (64, 8), (1, 6), (6, 1)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.bfloat16, 0.03)])
def test_matrices_are_orthogonalised_together_as_alone(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    given = [matrix.clone() for matrix in matrices]
    for matrix, found in zip(matrices, orthogonalise_together(matrices, 5, dtype), strict=True):
        alone = orthogonalise(matrix, 5)
        assert found.dtype == dtype
        assert (found - alone).norm() < tolerance * alone.norm()  # the step of bf16 is 1/256
    assert all(map(torch.equal, matrices, given))


def test_five_steps_bring_every_singular_value_near_one():
    found = torch.linalg.svdvals(orthogonalise(torch.randn(64, 576, generator=torch.Generator().manual_seed(0)), 5))
    assert 0.65 < found.min() <= found.max() < 1.25


@pytest.mark.parametrize("shape", [(8, 8), (4, 12), (12, 4)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_torchs_on_a_matrix(shape, nesterov):
    generator = torch.Generator().manual_seed(1)
    ours = torch.randn(*shape, generator=generator).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.3, "nesterov": nesterov}
    muon, reference = Muon([ours], steps=5, **settings), torch.optim.Muon([theirs], ns_steps=5, **settings)
    for _ in range(10):
        ours.grad = torch.randn(*shape, generator=generator)
        theirs.grad = ours.grad.clone()
        muon.step()
        reference.step()
    assert (ours - theirs).abs().max() < 0.02  # theirs iterates in bf16, whose step is 1/256


def test_muon_reshapes_a_convolution_to_a_matrix_by_outputs():
    generator = torch.Generator().manual_seed(2)
    weight, grad = torch.randn(2, 6, 5, 3, 3, generator=generator)
    kernel = weight.clone(memory_format=torch.channels_last).requires_grad_()
    matrix = weight.reshape(6, 45).requires_grad_()
    for parameter, its_grad in ((kernel, grad), (matrix, grad.reshape(6, 45))):
        parameter.grad = its_grad.clone()
        Muon([parameter], lr=0.1).step()
    torch.testing.assert_close(kernel.detach().reshape(6, 45), matrix.detach())


@pytest.mark.parametrize(("given", "expected"), [(0.2, 0.4), (None, 0.1)])
def test_lars_may_have_a_vector_lr_for_norms_and_biases(given, expected):
    asked = {"name": "lars", "lr": 0.05, "vector_lr": given, "decay_norm_and_bias": False}
    config = Pretrain(method={"name": "simclr"}, optimizer=asked, batch_size=512)
    method = Tiny()
    lars = optimizers.build(config.optimizer, method, schedule.compute_peak_lr(config))
    rates = {id(p): group["base_lr"] for group in lars.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in method.parameters() if p.ndim > 1} == {0.1}
    assert {rates[id(p)] for p in method.parameters() if p.ndim == 1} == {expected}


def test_muon_updates_norms_and_biases_by_sgd_at_vector_lr():
    asked = {"name": "muon", "lr": 0.05, "vector_lr": 0.2, "decay_norm_and_bias": False}
    config = Pretrain(method={"name": "simclr"}, optimizer=asked, batch_size=512)
    method = Tiny()
    muon = optimizers.build(config.optimizer, method, schedule.compute_peak_lr(config))
    rates = {id(p): group["base_lr"] for group in muon.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in method.parameters() if p.ndim > 1} == {0.1}
    assert {rates[id(p)] for p in method.parameters() if p.ndim == 1} == {0.4}

    theirs = method.norm.weight.detach().clone().requires_grad_()
    sgd = torch.optim.SGD([theirs], lr=0.4, momentum=0.9, nesterov=True)
    for step in range(3):
        method.norm.weight.grad = torch.full((4,), step + 1.0)
        theirs.grad = method.norm.weight.grad.clone()
        schedule.set_lr(muon, 1.0)
        muon.step()
        sgd.step()
    torch.testing.assert_close(method.norm.weight, theirs)


def test_the_trust_ratio_of_lars_is_one_where_a_norm_is_zero():
    parameter = torch.zeros(3, requires_grad=True)
    lars = LARS([parameter], lr=0.5, momentum=0.0)
    parameter.grad = torch.ones(3)
    lars.step()
    torch.testing.assert_close(parameter.detach(), torch.full((3,), -0.5))


def test_lars_allocates_its_buffers_once(monkeypatch):
    parameter = torch.ones(3, requires_grad=True)
    lars = LARS([parameter], lr=0.1)
    made = []
    zeros_like = torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda like: made.append(like) or zeros_like(like))
    for _ in range(3):
        parameter.grad = torch.ones(3)
        lars.step()
    assert len(made) == 1


@pytest.mark.parametrize("decays_all", [True, False])
def test_norms_and_biases_decay_only_when_configured(decays_all):
    groups = optimizers.make_parameter_groups(Tiny(), SGD(weight_decay=0.1, decay_norm_and_bias=decays_all), 1.0)
    decay = {tuple(p.shape): group["weight_decay"] for group in groups for p in group["params"]}
    small = 0.1 if decays_all else 0.0
    assert decay == {(4, 3): 0.1, (2, 4): 0.1, (4,): small, (2,): small}
    assert all(group["adapt"] == (p.ndim > 1) for group in groups for p in group["params"])


@pytest.mark.parametrize(("name", "plain"), [("sgd", False), ("adamw", False), ("lars", True), ("muon", True)])
def test_a_classifier_is_neither_adapted_nor_decayed_by_lars_and_muon(name, plain):
    method = Tiny()
    method.excluded_from_adaptation = lambda: (method.predictor,)
    config = Pretrain(
        method={"name": "simclr"},
        optimizer={"name": name, "lr": 1.0, "weight_decay": 0.1, "decay_norm_and_bias": False},
    ).optimizer
    groups = {id(p): group for group in optimizers.make_parameter_groups(method, config, 1.0) for p in group["params"]}
    classifier, other = groups[id(method.predictor.weight)], groups[id(method.backbone.weight)]
    assert (classifier["adapt"], classifier["weight_decay"]) == (not plain, 0.0 if plain else 0.1)
    assert (other["adapt"], other["weight_decay"]) == (True, 0.1)


def test_every_parameter_is_in_exactly_one_group():
    method = Tiny()
    found = [
        id(p)
        for group in optimizers.make_parameter_groups(method, SGD(decay_norm_and_bias=False), 1.0)
        for p in group["params"]
    ]
    assert sorted(found) == sorted(id(p) for p in method.parameters())


@pytest.mark.parametrize("config", [SGD(), AdamW(), LARSConfig()])
def test_the_predictors_rate_is_constant_while_the_others_follow_the_schedule(config):
    method = Tiny()
    optimizer = optimizers.build(config.model_copy(update={"decay_norm_and_bias": False}), method, 2.0)
    schedule.set_lr(optimizer, 0.25)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(method.predictor.weight)] == rates[id(method.predictor.bias)] == 2.0
    assert rates[id(method.backbone.weight)] == rates[id(method.norm.bias)] == 0.5


@pytest.mark.parametrize(("scaling", "expected"), [("none", 0.1), ("linear", 0.2), ("sqrt", 0.1 * math.sqrt(512))])
def test_learning_rate_scales_with_the_batch(scaling, expected):
    config = Pretrain(
        method={"name": "simclr"},
        batch_size=512,
        backbone=Backbone(),
        optimizer=SGD(lr=0.1),
        schedule=Schedule(lr_scaling=scaling),
    )
    assert schedule.compute_peak_lr(config) == pytest.approx(expected)


def test_schedule_is_a_linear_warm_up_and_then_a_cosine_to_zero():
    settings, total = Schedule(warmup_epochs=2.0), 100
    factors = [schedule.compute_lr_factor(settings, step, total, steps_per_epoch=5) for step in range(total + 1)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[10:] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * step / 90) for step in range(91)])
    assert factors[100] == pytest.approx(0)


def test_a_cosine_of_fewer_steps_than_the_run_stays_at_zero():
    settings = Schedule(warmup_epochs=0, decay_steps=40)
    factors = [schedule.compute_lr_factor(settings, step, 100, steps_per_epoch=5) for step in (0, 20, 40, 70, 99)]
    assert factors == pytest.approx([1, 0.5, 0, 0, 0])


def test_a_schedule_without_decay_and_a_warm_up_longer_than_the_run():
    assert schedule.compute_lr_factor(Schedule(warmup_epochs=0, decay="none"), 70, 100, 10) == 1
    assert (
        schedule.compute_lr_factor(Schedule(warmup_epochs=50), 99, 100, 10) == 1
    )  # a warm-up longer than the run ends with it

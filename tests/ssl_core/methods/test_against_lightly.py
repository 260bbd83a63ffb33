"""Losses against lightly's, value and gradient.

Two processes: tests/ssl_core/distributed/test_process_group.py. lightly has no loss of MoCo v3.
"""

import pytest
import torch

import ssl_core.models.torchvision_ops  # noqa: F401 - lightly imports torchvision

# isort: split
from lightly import loss as lightly

from ssl_core.methods import RunPosition, losses
from tests.ssl_core.methods.test_methods import build, views

SHAPES = [(8, 16), (5, 3), (32, 64)]


def pair(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator).requires_grad_() for _ in range(2)]


def assert_equal(ours, theirs, shape, **tolerance):
    """The same value and the same gradients for the same pair of N×D."""
    first, second = pair(*shape), pair(*shape)
    value, expected = ours(*first), theirs(*second)
    torch.testing.assert_close(value, expected, **tolerance)
    value.backward()
    expected.backward()
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_nt_xent(shape, temperature):
    theirs = lightly.NTXentLoss(temperature=temperature)
    assert_equal(lambda a, b: losses.nt_xent(a, b, temperature=temperature), theirs, shape)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_decoupled_nt_xent(shape, temperature):
    theirs = lightly.DCLLoss(temperature=temperature)
    assert_equal(lambda a, b: losses.nt_xent(a, b, temperature=temperature, decoupled=True), theirs, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_info_nce_over_a_queue(shape):
    queue = torch.nn.functional.normalize(torch.randn(40, shape[1]), dim=1)
    theirs = lightly.NTXentLoss(temperature=0.2, memory_bank_size=(40, shape[1]))
    theirs.memory_bank.bank = queue.clone()  # K×D
    assert_equal(
        lambda q, k: losses.info_nce(q, k.detach(), queue, temperature=0.2) + 0 * k.sum(),
        lambda q, k: theirs(q, k.detach()) + 0 * k.sum(),
        shape,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_negative_cosine(shape):
    assert_equal(losses.negative_cosine, lightly.NegativeCosineSimilarity(), shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_barlow_twins(shape):
    theirs = lightly.BarlowTwinsLoss(lambda_param=0.005)
    assert_equal(lambda a, b: losses.barlow_twins(a, b, redundancy=0.005), theirs, shape, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_vicreg(shape):
    theirs = lightly.VICRegLoss(lambda_param=25.0, mu_param=25.0, nu_param=1.0)
    weights = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
    assert_equal(lambda a, b: losses.vicreg(a, b, **weights), theirs, shape, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_dinos_cross_entropy(shape):
    """lightly subtracts its centre, initially zero, and divides by the temperatures."""
    theirs = lightly.DINOLoss(output_dim=shape[1], warmup_teacher_temp=0.04, teacher_temp=0.04, student_temp=0.1)
    assert_equal(
        lambda s, t: losses.dino_cross_entropy(s / 0.1, t.detach() / 0.04) + 0 * t.sum(),
        # One teacher view and two student views; lightly skips the first as the same view.
        lambda s, t: theirs([t.detach()], [s.detach(), s], epoch=0) + 0 * t.sum(),
        shape,
    )


def gradients(loss, method):
    parameters = [p for p in method.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def test_byols_loss_is_four_times_lightlys_plus_four():
    """lightly's examples average both negative cosines; the paper sums the squared distances."""
    method, (a, b) = build("byol").double(), [view.double() for view in views(8)]
    cosine = lightly.NegativeCosineSimilarity()
    p1, p2 = (method.predictor(method.embed(view)) for view in (a, b))
    t1, t2 = (method.target(view).detach() for view in (a, b))
    theirs = 0.5 * (cosine(p1, t2) + cosine(p2, t1))
    ours = method([a, b]).loss
    torch.testing.assert_close(ours, 4 + 4 * theirs)
    torch.testing.assert_close(gradients(ours, method), gradients(4 * theirs, method))


def test_dino_over_steps_with_four_views_centre_updates_and_temperature_warm_up():
    settings = {"projector": (16, 8), "prototypes": 12, "centre_momentum": 0.7, "teacher_warmup": 0.5}
    method = build("dino", **settings).double()
    theirs = lightly.DINOLoss(output_dim=12, student_temp=0.1, center_momentum=0.7).double()
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        seen = [torch.rand(6, 3, side, side, generator=generator).double() for side in (16, 16, 8, 8)]
        teacher = [method.target_prototypes(method.target(view)).detach() for view in seen[:2]]
        student = [method.prototypes(method.embed(view)) for view in seen]
        expected = theirs(teacher, student, teacher_temp=method.teacher_temperature.item())
        loss = method(seen).loss
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradients(loss, method), gradients(expected, method))
        torch.testing.assert_close(method.centre, theirs.center[0, 0])
        method.after_step(RunPosition(step + 1, total_steps=8, steps_per_epoch=2))
    assert method.teacher_temperature == pytest.approx(0.07)

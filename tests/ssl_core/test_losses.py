"""Losses against slow float64 transcriptions of the papers' formulas: values and gradients."""

import math

import pytest
import torch

from ssl_core.losses import negative_cosine, nt_xent


def slow_nt_xent(z1, z2, temperature):
    """Equation 1 of the SimCLR paper, written out pair by pair."""
    z = [row / row.pow(2).sum().sqrt() for row in torch.cat([z1, z2])]
    n, total = len(z1), 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(torch.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i)
        total = total - torch.log(torch.exp(z[i] @ z[j] / temperature) / others)
    return total / (2 * n)


def slow_negative_cosine(p, z):
    return -sum((a @ b) / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt()) for a, b in zip(p, z, strict=True)) / len(p)


def pair(n=5, d=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, d, generator=generator, dtype=dtype).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_equals_the_papers_formula(temperature):
    ours, slow = pair(), pair()
    loss, expected = nt_xent(*ours, temperature=temperature), slow_nt_xent(*slow, temperature)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for a, b in zip(ours, slow, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_negative_cosine_equals_the_papers_formula():
    ours, slow = pair(), pair()
    loss, expected = negative_cosine(*ours), slow_negative_cosine(*slow)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for a, b in zip(ours, slow, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_nt_xent_of_orthogonal_views_is_the_log_of_the_number_of_others():
    z = torch.eye(16)
    assert nt_xent(z[:8], z[8:], temperature=0.5).item() == pytest.approx(math.log(15))


def test_nt_xent_does_not_care_about_the_length_of_embeddings():
    z1, z2 = pair()
    torch.testing.assert_close(nt_xent(z1 * 7, z2 * 0.1, temperature=0.2), nt_xent(z1, z2, temperature=0.2))


def test_losses_are_fp32_inside_bf16_autocast():
    z1, z2 = pair(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nt_xent(z1, z2, temperature=0.1), negative_cosine(z1, z2)
        low = nt_xent(z1.bfloat16(), z2.bfloat16(), temperature=0.1)
    assert [loss.dtype for loss in (*inside, low)] == [torch.float32] * 3
    torch.testing.assert_close(inside, (nt_xent(z1, z2, temperature=0.1), negative_cosine(z1, z2)), rtol=0, atol=0)

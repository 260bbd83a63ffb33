"""Selective kernels: two convolutions mixed by channel-wise attention."""

import pytest
import torch
import torch.nn.functional as F

from ssl_core.models.selective_kernel import SelectiveKernel


def test_the_output_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    layer = SelectiveKernel(4, 6, 2).double().train()
    x = torch.randn(3, 4, 7, 7, dtype=torch.float64)
    one, two = (
        F.relu(F.batch_norm(F.conv2d(x, kernel, stride=2, padding=1), None, None, training=True))
        for kernel in layer.conv.weight.split(6)
    )
    whole = (one + two).mean(dim=(2, 3))
    middle = F.relu(F.batch_norm(whole @ layer.reduce.weight[:, :, 0, 0].T, None, None, training=True))
    first, second = (middle @ layer.expand.weight[:, :, 0, 0].T).split(6, dim=1)
    share = torch.sigmoid(first - second)[:, :, None, None]  # the softmax of two
    torch.testing.assert_close(layer(x), share * one + (1 - share) * two)


@pytest.mark.parametrize(("outputs", "middle"), [(8, 32), (512, 32), (1024, 64), (1536, 96)])
def test_the_hidden_width_is_a_sixteenth_of_the_outputs_and_at_least_32(outputs, middle):
    with torch.device("meta"):
        layer = SelectiveKernel(4, outputs, 1)
    assert layer.conv.weight.shape == (2 * outputs, 4, 3, 3)
    assert layer.reduce.weight.shape == (middle, outputs, 1, 1)
    assert layer.expand.weight.shape == (2 * outputs, middle, 1, 1)


def test_every_weight_has_a_gradient():
    torch.manual_seed(0)
    layer = SelectiveKernel(4, 6, 1)
    layer(torch.randn(5, 4, 6, 6)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())

"""The convolution layer against nn.Conv2d: outputs, gradients in fp32 and bf16, and images of a single pixel."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ssl_core.models.convolution import Conv


def pair(inputs, outputs, size, stride):
    """A Conv and an nn.Conv2d with the same weights."""
    torch.manual_seed(0)
    ours = Conv(inputs, outputs, size, stride)
    reference = torch.nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    reference.load_state_dict(ours.state_dict())
    return ours, reference


def gradients(conv, images, weights):
    images = images.detach().clone().requires_grad_()
    conv.zero_grad()
    (conv(images) * weights).sum().backward()
    return images.grad.float(), conv.weight.grad


def close(found, expected):
    return (found - expected).norm() <= 0.02 * expected.norm()


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2)])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_on_few_pixels_with_many_channels_equal_torchs(size, stride, side, layout):
    ours, reference = pair(128, 32, size, stride)
    images = torch.randn(6, 128, side, side)
    weights = torch.randn_like(reference(images))
    expected = gradients(reference, images, weights)
    for found, exact in zip(gradients(ours, images, weights), expected, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = gradients(ours, images.bfloat16().contiguous(memory_format=layout), weights)
    for found, exact in zip(low, expected, strict=True):
        assert close(found, exact)


@pytest.mark.parametrize("inputs", [64, 128])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 2)])
@pytest.mark.parametrize("side", [2, 5, 10])
def test_bf16_in_training_equals_torchs_in_fp32(inputs, size, stride, side):
    ours, reference = pair(inputs, 32, size, stride)
    images = torch.randn(6, inputs, side, side).contiguous(memory_format=torch.channels_last)
    exact = reference(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = ours(images.bfloat16())
        with torch.no_grad():  # as a target network, and as a chunk that is computed again for its gradient
            again = ours(images.bfloat16())
    assert close(low.float(), exact)
    assert torch.equal(low, again)
    assert low.stride() == reference(images).stride()
    weights = torch.randn_like(exact)
    expected = gradients(reference, images, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(ours, images.bfloat16(), weights)
    assert all(close(*each) for each in zip(found, expected, strict=True))


def test_images_of_2x2_pixels_with_many_channels_are_one_product():
    ours, _ = pair(128, 32, 3, 1)
    images = torch.randn(6, 128, 2, 2).contiguous(memory_format=torch.channels_last).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16), profile(activities=[ProfilerActivity.CPU]) as trained:
        ours(images)
    with torch.autocast("cpu", dtype=torch.bfloat16), profile(activities=[ProfilerActivity.CPU]) as evaluated:
        ours.eval()(images)
    called = [{event.key for event in run.key_averages()} for run in (trained, evaluated)]
    assert ["aten::conv2d" in names for names in called] == [False, True]


def test_bf16_gradient_of_a_strided_convolution_on_one_pixel_is_finite():
    ours, reference = pair(32, 64, 3, 2)
    images, weights = torch.rand(16, 32, 1, 1), torch.randn(16, 64, 1, 1)
    for _ in range(5):
        waste = [torch.full((32 * 64 * 9 * times,), torch.nan) for times in (1, 2, 4)]
        del waste  # the allocator returns memory that holds NaN next
        expected = gradients(reference, images, weights)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = gradients(ours, images.bfloat16().contiguous(memory_format=torch.channels_last), weights)
        for found, exact in zip(low, expected, strict=True):
            assert close(found, exact)


def test_a_convolution_on_one_pixel_is_the_same_with_every_stride():
    ours, reference = pair(4, 4, 3, 2)
    x = torch.rand(2, 4, 1, 1)
    torch.testing.assert_close(ours(x), reference(x))


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_a_strided_1x1_convolution_of_few_channels_equals_torchs(channels):
    """oneDNN's own gradient of it writes beyond its buffer on AVX2: in double precision the reference is torch's."""
    ours, reference = pair(channels, 4, 1, 2)
    for side in (4, 5):
        images = torch.randn(6, channels, side, side)
        weights = torch.randn(6, 4, -(-side // 2), -(-side // 2))
        expected = gradients(reference.double(), images.double(), weights.double())
        for found, exact in zip(gradients(ours, images, weights), expected, strict=True):
            torch.testing.assert_close(found, exact.float())

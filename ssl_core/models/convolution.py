"""Convolution layer: nn.Conv2d with workarounds for defects of oneDNN and, in bf16 on a CPU, faster small images."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW_PIXELS = 25  # in the output
_MANY_CHANNELS = {1: 128, 2: 64}  # in the input, by the stride
_TINY = 2  # the side of an image of which each pixel of a 3×3 convolution takes every pixel
# The tap of a 3×3 filter by which pixel p of a 2×2 output takes pixel q of the input, at 4·p + q.
_TAPS = torch.tensor([4, 5, 7, 8, 3, 4, 6, 7, 1, 2, 4, 5, 0, 1, 3, 4])
_VECTOR = 8  # fp32 numbers in a register of AVX2


class Conv(nn.Conv2d):
    """A square convolution without groups, dilation or bias; the state dict is nn.Conv2d's.

    On a single pixel the stride is 1, which gives the same output: oneDNN's weight gradient of a strided 3×3
    convolution of one pixel holds uninitialised memory (torch 2.13, AMX), often NaN.

    A strided 1×1 convolution of fewer than 8 channels is one of stride 1 on every second pixel: oneDNN's gradient
    writes beyond its buffer (torch 2.13, AVX2), which ends the process.

    Trained in bf16 on a CPU, small images with many channels are convolved by matrix products, where oneDNN takes two
    to six times as long (measured on AMX and AVX-512): on few pixels the weight gradient is one product, and on 2×2
    pixels the whole convolution is.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int | None = None) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2 if padding is None else padding, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        stride = 1 if input.shape[-2:] == (1, 1) else self.stride[0]
        if stride > 1 and self.kernel_size == (1, 1) and self.in_channels < _VECTOR:
            input, stride = input[:, :, ::stride, ::stride], 1
        if input.dtype == torch.bfloat16 and input.device.type == "cpu" and self.training:
            if self._is_tiny(input, stride):
                return self._multiply(input)
            if self._is_small(input, stride):
                y: Tensor = _SmallConv.apply(input, self.weight.to(torch.bfloat16), stride, self.padding[0])
                return y
        return F.conv2d(input, self.weight, None, stride, self.padding)

    def _is_tiny(self, x: Tensor, stride: int) -> bool:
        fits = x.shape[-2:] == (_TINY, _TINY) and self.kernel_size == (3, 3) and self.padding == (1, 1)
        return fits and stride == 1 and self.in_channels >= _MANY_CHANNELS[1]

    def _is_small(self, x: Tensor, stride: int) -> bool:
        pixels = -(-x.shape[2] // stride) * -(-x.shape[3] // stride)
        many = _MANY_CHANNELS[min(stride, 2)]
        return pixels <= _FEW_PIXELS and self.in_channels >= many and torch.is_grad_enabled()

    def _multiply(self, x: Tensor) -> Tensor:
        """The convolution of images of 2×2 pixels, N×Ci×2×2, as one product: of their 4·Ci values by a 4·Ci×4·Co."""
        n, inputs, outputs = len(x), self.in_channels, self.out_channels
        by_tap = self.weight.permute(2, 3, 0, 1).reshape(-1, outputs, inputs)
        matrix = by_tap.index_select(0, _TAPS).view(_TINY**2, _TINY**2, outputs, inputs)
        matrix = matrix.transpose(1, 2).to(torch.bfloat16).reshape(_TINY**2 * outputs, _TINY**2 * inputs)
        y = x.permute(0, 2, 3, 1).reshape(n, -1) @ matrix.T
        return y.view(n, _TINY, _TINY, outputs).permute(0, 3, 1, 2)


class _SmallConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.shape, ctx.apart = x.shape, stride if weight.shape[-1] == 1 else 1
        if ctx.apart > 1:  # of a strided 1×1 convolution only some pixels count
            x, stride = x[:, :, ::stride, ::stride].contiguous(memory_format=torch.channels_last), 1
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        geometry = [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1
        x_grad, *_ = torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, [True, False, False])
        if ctx.apart > 1:
            kept, x_grad = x_grad, grad.new_zeros(ctx.shape).contiguous(memory_format=torch.channels_last)
            x_grad[:, :, :: ctx.apart, :: ctx.apart] = kept
        return x_grad, _compute_weight_grad(grad, x, weight.shape, ctx.stride, ctx.padding), None, None


def _compute_weight_grad(grad: Tensor, x: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
    """The weight gradient Co×Ci×K×K: output gradients N×Co×H'×W' times the input patches."""
    outputs, inputs, size, _ = shape
    n, _, height, width = grad.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding)).contiguous()  # N×H×W×Ci
    by_image, by_row, by_pixel, _ = padded.stride()
    strides = (by_image, stride * by_row, stride * by_pixel, by_row, by_pixel, 1)
    patches = padded.as_strided((n, height, width, size, size, inputs), strides).reshape(n * height * width, -1)
    flat = grad.permute(0, 2, 3, 1).reshape(n * height * width, outputs)
    return (flat.T @ patches).view(outputs, size, size, inputs).permute(0, 3, 1, 2)

"""Convolution layer: nn.Conv2d with workarounds for defects of oneDNN, on very small images and with few channels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW_PIXELS = 16  # in the output
_MANY_CHANNELS = 128  # in the input
_VECTOR = 8  # fp32 numbers in a register of AVX2


class Conv(nn.Conv2d):
    """A square convolution without groups, dilation or bias; the state dict is nn.Conv2d's.

    On a single pixel the stride is 1, which gives the same output: oneDNN's weight gradient of a strided 3×3
    convolution of one pixel holds uninitialised memory (torch 2.13, AMX), often NaN.

    A strided 1×1 convolution of fewer than 8 channels is one of stride 1 on every second pixel: oneDNN's gradient
    writes beyond its buffer (torch 2.13, AVX2), which ends the process.

    On few pixels with many channels the weight gradient is one matrix product; oneDNN takes three to six times as long
    (measured on AMX, batch 512: 62 ms against 18 for 256 channels at 3×3, 51 against 9 at 2×2).
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int | None = None) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2 if padding is None else padding, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        stride = 1 if input.shape[-2:] == (1, 1) else self.stride[0]
        if stride > 1 and self.kernel_size == (1, 1) and self.in_channels < _VECTOR:
            input, stride = input[:, :, ::stride, ::stride], 1
        if input.dtype == torch.bfloat16 and input.device.type == "cpu" and self._is_small(input, stride):
            y: Tensor = _SmallConv.apply(input, self.weight.to(torch.bfloat16), stride, self.padding[0])
            return y
        return F.conv2d(input, self.weight, None, stride, self.padding)

    def _is_small(self, x: Tensor, stride: int) -> bool:
        pixels = -(-x.shape[2] // stride) * -(-x.shape[3] // stride)
        return pixels <= _FEW_PIXELS and self.in_channels >= _MANY_CHANNELS and torch.is_grad_enabled()


class _SmallConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        geometry = [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1
        x_grad, *_ = torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, [True, False, False])
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

"""Devices: CPU and GPU selection, their number, bf16 autocast and memory formats."""

import ctypes
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.errors import ConfigUnfit

_ALIGNMENT = 8  # bytes, of a tensor in a buffer
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


@dataclass(frozen=True)
class Device:
    """The device of a run on this machine, and whether bf16 is faster than fp32 on it."""

    device: Literal["cpu", "cuda"]
    gains_from_bf16: bool

    @classmethod
    def here(cls, asked: Literal["auto", "cpu", "cuda"] = "auto") -> "Device":
        """Return this machine's device. Raises ConfigUnfit when a GPU is asked for and there is none."""
        if asked == "cuda" and not torch.cuda.is_available():
            raise ConfigUnfit('The config asks for device "cuda", and this machine has no GPU that torch can use.')
        if asked == "cuda" or (asked == "auto" and torch.cuda.is_available()):
            return cls("cuda", torch.cuda.is_bf16_supported(including_emulation=False))
        return cls("cpu", _has_bf16_instructions())


def local_device(name: str) -> torch.device:
    """Return the device of this process; of several GPUs the one that its process group has selected."""
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def use_in_thread(device: torch.device) -> None:
    """Select the GPU in the calling thread, where CUDA would select the first one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def count_devices(device: str) -> int:
    """Return the number of processes that can train here: one per GPU or, on a CPU, one per processor."""
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return torch.cuda.device_count()
    return count_processors()


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Run the block in a resolved config's precision, "fp32" or "bf16" autocast."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """Return the layout of images and convolution weights: channels last on a CPU and for bf16 kernels."""
    return torch.channels_last if device.type == "cpu" or precision == "bf16" else torch.contiguous_format


def to_device(network: nn.Module, device: torch.device, precision: str) -> None:
    """Move a network to the device, its convolutions in the layout of the precision."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format(device, precision))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device. A copy to a GPU is from pinned memory, so that the host does not wait for it."""
    if device.type == "cpu" or tensor.device.type == device.type:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def send_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return the tensors, of the CPU, on the device, as `send` does, with one copy for all."""
    if device.type == "cpu":
        return list(tensors)
    ends = list(itertools.accumulate(-(-t.numel() * t.element_size() // _ALIGNMENT) * _ALIGNMENT for t in tensors))
    buffer = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=True)
    places = list(zip(tensors, [0, *ends], strict=False))
    for tensor, start in places:
        _part(buffer, start, tensor).copy_(tensor)
    sent = buffer.to(device, non_blocking=True)
    return [_part(sent, start, tensor) for tensor, start in places]


def _part(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    """The part of a buffer of bytes that has the shape and dtype of another tensor."""
    return buffer[start : start + like.numel() * like.element_size()].view(like.dtype).view(like.shape)


def select_kernels(*, exact: bool) -> None:
    """Let a GPU compute by deterministic kernels or, if not `exact`, by those that a timing finds fastest.

    Call it before the first computation on a GPU, when cuBLAS reads its workspace from the environment.
    Sources: torch.backends.cudnn; cuBLAS, "Results reproducibility".
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = exact, not exact
    if exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def describe_gpu() -> dict[str, str]:
    """Return the model of the current GPU and the versions of CUDA and cuDNN, on which its results depend."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def keep_freed_memory() -> None:
    """Make the C library reuse large freed blocks rather than return them to the kernel after every step."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Return freed blocks of every size to the kernel, where the C library can."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _has_bf16_instructions() -> bool:
    """Whether the processor multiplies bf16 numbers in hardware; otherwise bf16 is slower than fp32 on a CPU."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux
        return False
    return torch.backends.mkldnn.is_available() and (flags >= {"amx_tile", "amx_bf16"} or "avx512_bf16" in flags)

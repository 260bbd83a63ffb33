"""The machine: which device a run gets, and whether it gains from bf16."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ssl_core.errors import ConfigUnfit

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


@dataclass(frozen=True)
class Device:
    """What a config's `device` and `precision` settle to here."""

    device: Literal["cpu", "cuda"]
    gains_from_bf16: bool

    @classmethod
    def here(cls, asked: Literal["auto", "cpu", "cuda"] = "auto") -> "Device":
        """Look at this machine. Raises ConfigUnfit when a GPU is asked for and there is none."""
        if asked == "cuda" and not torch.cuda.is_available():
            raise ConfigUnfit('The config asks for device "cuda", and this machine has no GPU that torch can use.')
        if asked == "cuda" or (asked == "auto" and torch.cuda.is_available()):
            return cls("cuda", torch.cuda.is_bf16_supported(including_emulation=False))
        return cls("cpu", _has_bf16_instructions())


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Run the block in a resolved config's precision: as it is, or in bf16 autocast."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """Return the layout of images and convolution weights; bf16 kernels want the channels last, and so does any CPU."""
    return torch.channels_last if device.type == "cpu" or precision == "bf16" else torch.contiguous_format


def to_device(network: nn.Module, device: torch.device, precision: str) -> None:
    """Move a network to the device, its convolutions in the layout of the precision."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format(device, precision))


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next step, rather than have them paged in anew each time."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _has_bf16_instructions() -> bool:
    """Whether the processor multiplies bf16 numbers in hardware; without, bf16 is slower than fp32 on a CPU."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux, where no such processor is used
        return False
    return torch.backends.mkldnn.is_available() and (flags >= {"amx_tile", "amx_bf16"} or "avx512_bf16" in flags)

"""Devices: detection of bf16 instructions from /proc/cpuinfo."""

from pathlib import Path

import pytest
import torch

from ssl_core.device import Device


@pytest.mark.parametrize(
    ("flags", "gains"),
    [
        ("fpu sse2 avx2", False),
        ("fpu avx2 avx512f avx512_bf16 avx512_vnni", True),
        ("fpu avx512f amx_tile amx_bf16", True),
        ("fpu avx512f amx_tile amx_int8", False),
        ("fpu xavx512_bf16", False),
    ],
)
def test_a_cpu_gains_from_bf16_when_it_multiplies_it_in_hardware(monkeypatch, flags, gains):
    cpuinfo = f"processor\t: 0\nmodel name\t: any\nflags\t\t: {flags}\n"
    monkeypatch.setattr(Path, "read_text", lambda self: {"/proc/cpuinfo": cpuinfo}[str(self)])
    # torch multiplies bf16 by oneDNN, which not every build of it has.
    assert Device.here("cpu") == Device("cpu", gains and torch.backends.mkldnn.is_available())


def test_a_machine_without_cpuinfo_computes_in_fp32(monkeypatch):
    def missing(self):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    assert Device.here("cpu") == Device("cpu", gains_from_bf16=False)

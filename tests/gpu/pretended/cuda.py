"""`torch.cuda` with the pretended GPU: one device of 80 GiB."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.cuda.amp import common

from tests.gpu.pretended.dispatch import PretendedGpu
from tests.gpu.pretended.record import RECORD, Kind

_FREE_BYTES, _BYTES = 75 << 30, 80 << 30
_ANSWERS: dict[str, Callable[..., Any]] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "is_bf16_supported": lambda including_emulation=True: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "get_device_name": lambda device=None: "pretended",
    "mem_get_info": lambda device=None: (_FREE_BYTES, _BYTES),
    "manual_seed_all": lambda seed: None,
    "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),  # tracing an export keeps it
    "set_rng_state": lambda new_state, device="cuda": None,
    "synchronize": lambda device=None: RECORD.add(Kind.WAIT, "synchronize"),
}


def install() -> None:
    """Give this process the pretended GPU, in this thread and in each that it starts. The guard must be loaded."""
    for name, answer in _ANSWERS.items():
        setattr(torch.cuda, name, answer)
    common.amp_definitely_not_available = lambda: False
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") makes a CPU tensor and copies it
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # `to` makes new parameters, of the other class
    threading.Thread.run = _in_mode(threading.Thread.run)
    PretendedGpu().__enter__()


def _in_mode(run: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Return the body of a thread, in the mode: modes belong to threads."""

    def run_in_mode(thread: threading.Thread) -> None:
        with PretendedGpu(), RECORD.in_thread(thread.name):
            run(thread)

    return run_in_mode

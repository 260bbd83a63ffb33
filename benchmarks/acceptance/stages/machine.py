"""The machine: GPU, driver, processors, and the versions on which results depend."""

import platform
import shutil
import subprocess
from collections.abc import Iterator

import torch

from benchmarks.acceptance.figure import Figure, skipped
from benchmarks.acceptance.setup import Setup
from ssl_core.device import count_processors, describe_gpu


def measure(setup: Setup) -> Iterator[Figure]:
    yield Figure("python", platform.python_version())
    yield Figure("torch", torch.__version__)
    yield Figure("processors", count_processors())
    if setup.device == "cuda":
        for name, value in describe_gpu().items():
            yield Figure(name, value)
        yield Figure("device memory", torch.cuda.get_device_properties(0).total_memory / 2**30, "GiB")
        yield _read_driver()


def _read_driver() -> Figure:
    if shutil.which("nvidia-smi") is None:
        return skipped("driver", "nvidia-smi is not installed")
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return Figure("driver", subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())

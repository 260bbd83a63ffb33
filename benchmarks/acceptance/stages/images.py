"""The images of all other stages: an archive that is ingested, a packed dataset, or synthetic ones."""

import shutil
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.acceptance.figure import Figure
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.synthetic_images import pack_synthetic
from ssl_core.data.dataset import Dataset


def measure(setup: Setup) -> Iterator[Figure]:
    yield Figure("source", _prepare(setup))
    dataset = Dataset.open(setup.data)
    yield Figure("train", len(dataset.indices("train")), "images")
    yield Figure("test", len(dataset.indices("test")), "images")


def _prepare(setup: Setup) -> str:
    """Pack the images unless they are packed; return where they are from."""
    if (setup.data / "dataset.json").is_file():
        return f"{setup.data.name}, packed before"
    shutil.rmtree(setup.data, ignore_errors=True)  # of a run that was cut off
    if setup.images is None:
        pack_synthetic(setup.data, *((320, 80) if setup.tiny else (10_000, 2_000)))
        return "synthetic"
    command = [sys.executable, "-m", "worker.uploads.ingest", str(setup.images), "--out", str(setup.data), "--events"]
    subprocess.run(command, check=True)
    return setup.images.name

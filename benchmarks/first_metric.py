"""Benchmark of the start of a job: time from `POST /jobs` to the first metric, cold, and memory of the supervisor.

    python -m benchmarks.first_metric [--times 3]

Each repetition starts a new local service on scikit-learn's digits; its first job imports torch from scratch. The
supervisor is the Celery child that runs the job; its resident memory is read while the trainer runs.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from sklearn.datasets import load_digits

from twoviews import Client, Job
from twoviews.demo.run import running_service

CONFIG = {"method": {"name": "simclr"}, "epochs": 200, "batch_size": 64}
GOALS = {"POST to first metric": "under 8 s", "supervisor, resident": "under 150 MB"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    runs = [measure() for _ in range(parser.parse_args().times)]
    seconds, bytes_ = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"{'POST to first metric':24} {seconds:8.1f} s   {GOALS['POST to first metric']}")
    print(f"{'supervisor, resident':24} {bytes_ / 1e6:8.0f} MB  {GOALS['supervisor, resident']}")


def measure() -> tuple[float, int]:
    """Return the seconds from POST to the first metric, and the bytes of the supervisor."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder)) as url,
        Client(url=url, data_dir=folder) as client,
    ):
        upload = Path(folder) / "digits.npz"
        upload.write_bytes(digits())
        dataset = client.datasets.wait(client.datasets.upload(upload))
        start = time.monotonic()
        job = client.jobs.submit(dataset=dataset, config=CONFIG)
        while not client.jobs.metrics(job, wait_seconds=5).series:
            pass
        seconds = time.monotonic() - start
        resident = find_supervisor(job).memory_info().rss
        client.jobs.cancel(job)
        return seconds, resident


def digits() -> bytes:
    """Return 1,797 digits, 8×8 grey, as an npz of images and labels."""
    images, labels = load_digits(return_X_y=True)
    packed = io.BytesIO()
    np.savez(packed, images=(images.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8), labels=labels)
    return packed.getvalue()


def find_supervisor(job: Job) -> psutil.Process:
    """Return the parent of the job's trainer. Raises LookupError."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "ssl_core" in command and any(job.id in part for part in command):
            parent = process.parent()
            assert parent is not None
            return parent
    raise LookupError(f"no trainer of {job.id} is running")


if __name__ == "__main__":
    main()

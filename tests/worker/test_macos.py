"""The service on macOS, by a process that lacks what only Linux has."""

import os
import subprocess
import sys

MACOS = """
import os, sys
import torch, zoneinfo  # of Linux
for name in ("sched_getaffinity", "waitid", "posix_fadvise", "eventfd"):
    delattr(os, name)
sys.platform = "darwin"
from pathlib import Path
from service.settings import Settings
from ssl_core.device import Device, count_processors
from twoviews.local.processes import Child, stop
from worker.encoder.embedder import Embedder
from worker.trainer.process import TrainerProcess
from worker.uploads import sandbox

assert count_processors() == os.cpu_count()
Device.here("cpu")
Embedder(Settings())
child = Child("sleep", ["sleep", "600"], os.environ, Path(sys.argv[1]))
child.start()
assert child.is_running
stop([child], grace_seconds=20)
assert not child.is_running
trainer = TrainerProcess(["sh", "-c", "echo line"])
lines = []
while not trainer.has_ended:
    lines += trainer.read(0.05)
assert [*lines, *trainer.kill_and_reap()] == [b"line"]
sandbox.enter(sandbox.ResourceLimits(memory_bytes=2**30, cpu_seconds=60, file_bytes=2**20))
assert sandbox.address_space_bytes() == 0
"""


def test_processes_and_the_encoder_start_on_macos(tmp_path):
    environment = os.environ | {"TWOVIEWS_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-c", MACOS, tmp_path / "log"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr

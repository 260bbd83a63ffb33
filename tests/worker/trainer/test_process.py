"""Trainer processes end with their parent, whatever program they run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

SUPERVISOR = """
import os
from worker.trainer.process import TrainerProcess
print(TrainerProcess(["sleep", "600"]).pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_trainer_dies_with_its_supervisor():
    supervisor = subprocess.run([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, check=False)
    assert supervisor.returncode == -signal.SIGKILL
    trainer = int(supervisor.stdout)
    while is_alive(trainer):  # bounded by the test's time limit
        time.sleep(0.01)


def test_a_child_whose_parent_has_ended_does_not_start():
    code = (
        "import os; from ssl_core.distributed.parent_death import die_with_parent;"
        "die_with_parent(os.getppid() + 1); print(1)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, b"")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

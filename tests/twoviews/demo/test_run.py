"""The demo, run once: its table and figures, its processes, and its isolation from other services."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import shadows
from tests.twoviews import scripted
from twoviews.demo import figures
from twoviews.demo.run import LABEL_FRACTIONS

ROWS = ("Raw pixels", "Random network", "Supervised", "SimCLR", "SimSiam")
CHANCE = 0.1  # ten digits
LOGS = {"api", "encoder", "keeper", "valkey", "worker-data", "worker-train"}


class FinishedDemo:
    """A demo that has ended: its output, its files, and the ids of its processes."""

    def __init__(self, folder, script):
        self.out, self.data, self.foreign = folder / "out", folder / "data", folder / "foreign.db"
        self.imported = shadows.fill(folder)
        before = set(folder.iterdir())
        command = [sys.executable, "-P", "-m", "twoviews", "demo", "--epochs", "1", "--draws", "1"]
        command += ["--out", str(self.out), "--data-dir", str(self.data)]
        exported = {"TWOVIEWS_URL": script.url, "TWOVIEWS_KEY": "tv_exported", "TWOVIEWS_DATA_DIR": str(folder / "no")}
        exported |= {"TWOVIEWS_DATABASE_URL": f"sqlite:///{self.foreign}", "TWOVIEWS_ENCODER_URL": script.url}
        environment = os.environ | exported | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as process:
            self.pids = self._wait_for_service(process)
            self.output = process.communicate()[0]
        self.left = sorted(path.name for path in set(folder.iterdir()) - before)
        self.exit_code, self.requests = process.returncode, script.requests

    def find_pids(self):
        """Return the pids of all processes that name the demo's folder."""
        mark = str(self.data).encode()
        return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in words(pid)}

    def _wait_for_service(self, process):
        """Return the pids of the demo's service once it has started."""
        while process.poll() is None:
            if (self.data / "credentials.json").exists() and len(found := self.find_pids()) >= len(LOGS):
                return found
            time.sleep(0.05)
        return set()


def words(pid):
    """Return the command and the environment of a process; empty for one that has ended."""
    try:
        return b"\0".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    except OSError:
        return b""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with scripted.server() as script:
        yield FinishedDemo(tmp_path_factory.mktemp("demo"), script)


def test_it_imports_nothing_from_the_working_directory(demo):
    assert not demo.imported.exists(), demo.imported.read_text()


def test_it_prints_a_table_of_accuracies(demo):
    assert demo.exit_code == 0, demo.output
    for title in ROWS:
        row = re.search(rf"^│ {title} .*$", demo.output, re.MULTILINE)
        assert row, f"{title} is not in\n{demo.output}"
        shown = [float(cell) for cell in re.findall(r"\d+\.\d", row[0])]
        assert len(shown) == len(LABEL_FRACTIONS) + (title != "Supervised")
        low = 0 if title == "Supervised" else 100 * CHANCE  # one epoch is not enough to learn
        assert all(low < percent <= 100 for percent in shown)


def test_supervised_training_uses_the_network_of_simclr(demo):
    cards = [json.loads(path.read_text()) for path in demo.data.glob("**/model.json")]
    (simclr,) = (card for card in cards if card["method"] == "simclr")
    supervised = [card for card in cards if card["method"] == "supervised"]
    assert len(supervised) == len(LABEL_FRACTIONS)
    for card in supervised:
        assert card["backbone"] == simclr["backbone"]
        assert card["preprocessing"]["image_size"] == simclr["preprocessing"]["image_size"]


@pytest.mark.parametrize("name", figures.NAMES)
def test_it_writes_figures_that_are_not_empty(demo, name):
    with Image.open(demo.out / name) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) >= 600
    assert len(np.unique(pixels)) > 50
    ink = (pixels < 200).mean(axis=1)
    assert (ink > 0).mean() > 0.4, "most of the figure is empty"


def test_all_its_processes_end(demo):
    assert {path.stem for path in (demo.data / "logs").glob("*.log")} == LOGS
    assert len(demo.pids) >= len(LOGS)
    assert demo.find_pids() == set()


def test_it_uses_no_service_of_the_environment(demo):
    assert demo.requests == []
    assert not demo.foreign.exists()
    assert (demo.data / "twoviews.db").exists()
    assert demo.left == ["data", "out"]

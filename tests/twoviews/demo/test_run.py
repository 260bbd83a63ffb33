"""The demo, told once for real: its table, its pictures, nothing left running, and no other service's settings."""

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

from tests.twoviews import scripted
from twoviews.demo import pictures
from twoviews.demo.run import LABEL_FRACTIONS

ROWS = ("Raw pixels", "Random network", "Supervised", "SimCLR", "SimSiam")
CHANCE = 0.1  # ten digits
LOGS = {"api", "encoder", "keeper", "valkey", "worker-data", "worker-train"}


class Told:
    """A demo that has ended: what it said, what it left, and the processes that it had."""

    def __init__(self, folder, script):
        self.out, self.data, self.foreign = folder / "out", folder / "data", folder / "foreign.db"
        command = [sys.executable, "-m", "twoviews", "demo", "--epochs", "2", "--draws", "1"]
        command += ["--out", str(self.out), "--data-dir", str(self.data)]
        exported = {"TWOVIEWS_URL": script.url, "TWOVIEWS_KEY": "tv_exported", "TWOVIEWS_DATA_DIR": str(folder / "no")}
        exported |= {"TWOVIEWS_DATABASE_URL": f"sqlite:///{self.foreign}", "TWOVIEWS_ENCODER_URL": script.url}
        environment = os.environ | exported | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as process:
            self.family = self._family(process)
            self.said = process.communicate()[0]
        self.exit_code, self.asked = process.returncode, script.asked

    def living(self):
        """The pids of all processes that name the demo's folder."""
        mark = str(self.data).encode()
        return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in words(pid)}

    def _family(self, process):
        """Those that were there when the demo's service was."""
        while process.poll() is None:
            if (self.data / "credentials.json").exists() and len(found := self.living()) >= len(LOGS):
                return found
            time.sleep(0.05)
        return set()


def words(pid):
    """The command and the environment of a process; nothing for one that has ended."""
    try:
        return b"\0".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    except OSError:
        return b""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    with scripted.server() as script:
        yield Told(tmp_path_factory.mktemp("demo"), script)


def test_it_ends_well_with_a_table_of_accuracies(told):
    assert told.exit_code == 0, told.said
    for title in ROWS:
        row = re.search(rf"^│ {title} .*$", told.said, re.MULTILINE)
        assert row, f"{title} is not in\n{told.said}"
        shown = [float(cell) for cell in re.findall(r"\d+\.\d", row[0])]
        assert len(shown) == len(LABEL_FRACTIONS) + (title != "Supervised")
        low = 0 if title == "Supervised" else 100 * CHANCE  # two epochs teach a network nothing
        assert all(low < percent <= 100 for percent in shown)


def test_supervised_training_is_of_the_network_that_simclr_trains(told):
    cards = [json.loads(path.read_text()) for path in told.data.glob("**/model.json")]
    (simclr,) = (card for card in cards if card["method"] == "simclr")
    supervised = [card for card in cards if card["method"] == "supervised"]
    assert len(supervised) == len(LABEL_FRACTIONS)
    for card in supervised:
        assert card["backbone"] == simclr["backbone"]
        assert card["preprocessing"]["image_size"] == simclr["preprocessing"]["image_size"]


@pytest.mark.parametrize("name", pictures.NAMES)
def test_it_leaves_a_picture_that_shows_something(told, name):
    with Image.open(told.out / name) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) >= 600
    assert len(np.unique(pixels)) > 50
    ink = (pixels < 200).mean(axis=1)
    assert (ink > 0).mean() > 0.4, "most of the picture is empty"


def test_nothing_that_it_started_is_left_running(told):
    assert {path.stem for path in (told.data / "logs").glob("*.log")} == LOGS
    assert len(told.family) >= len(LOGS)
    assert told.living() == set()


def test_it_touches_no_service_that_the_environment_names(told):
    assert told.asked == []
    assert not told.foreign.exists()
    assert (told.data / "twoviews.db").exists()
    assert sorted(path.name for path in told.data.parent.iterdir()) == ["data", "out"]

"""The acceptance run: a slice of it in small, and stages that hang, crash and miss their goal."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.acceptance.command import main
from benchmarks.acceptance.parts import PARTS
from tests.acceptance.__main__ import BROKEN, SMALLER
from tests.processes import alive, soon

ROOT = Path(__file__).parent.parent.parent
WORKING = ("machine", "images", "methods", "exact", "speed", "views", "loss")
FAILING = ("hang", "crash", "differ")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("acceptance")


def run(out: Path, *stages: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the stages; return the process and its JSON's stages by name."""
    options = ["--device", "cpu", "--tiny", "--out", str(out), "--only", *stages]
    command = [sys.executable, "-m", "tests.acceptance", "first", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    return done, {stage["stage"]: stage for stage in json.loads((out / "first.json").read_text())["stages"]}


@pytest.fixture(scope="module")
def whole(out: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """A run of stages that work, with three that do not in their midst."""
    return run(out, "machine", *FAILING, *WORKING[1:])


def test_stages_run_whatever_those_before_them_do(whole):
    done, stages = whole
    assert list(stages) == ["machine", *FAILING, *WORKING[1:]], done.stderr
    assert [name for name, stage in stages.items() if stage["failed"]] == [*FAILING], done.stdout
    assert all(figure["state"] in ("measured", "passed") for name in WORKING for figure in stages[name]["figures"])
    assert done.returncode == 1


def test_a_stage_that_hangs_is_killed_at_its_limit_with_its_children(whole):
    _, stages = whole
    assert stages["hang"]["error"].startswith("killed at its limit of 2 s")
    assert 2 <= stages["hang"]["seconds"] < 20
    (child,) = stages["hang"]["figures"]  # what was measured before the limit is kept
    soon(lambda: not alive(child["value"]))


def test_a_crash_is_shown_with_the_last_lines_of_the_output(whole):
    done, stages = whole
    assert [figure["name"] for figure in stages["crash"]["figures"]] == ["before"]
    assert stages["crash"]["error"].startswith("ended with status 1\nabout to crash\n")
    assert "ValueError: crashed on purpose" in done.stdout


def test_a_run_is_killed_and_resumed_to_equal_weights(whole):
    _, stages = whole
    results = {figure["name"]: figure["value"] for figure in stages["exact"]["figures"]}
    assert results == {"BYOL, twice": "equal weights", "BYOL, killed and resumed": "equal weights"}


def test_every_stage_has_a_row_in_the_table(whole):
    done, stages = whole
    assert all(f"│ {name} " in done.stdout for name in stages)
    assert all(figure["value"] > 0 for figure in stages["speed"]["figures"])


def test_a_goal_that_is_not_met_is_no_failure(out):
    done, stages = run(out / "goals", "miss")
    assert [figure["state"] for figure in stages["miss"]["figures"]] == ["not met", "skipped"]
    assert done.returncode == 0, done.stderr


def test_an_unknown_stage_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        main(PARTS, ["first", "--only", "nothing"])
    assert refused.value.code == 2
    assert "first has no stage nothing" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "minutes"), [("first", 5), ("long", 8)])
def test_the_limits_of_a_part_fit_its_time(part, minutes):
    assert sum(stage.limit_seconds for stage in PARTS[part].values()) <= 60 * minutes


def test_the_broken_stages_are_none_of_the_acceptance():
    assert not BROKEN.keys() & PARTS["first"].keys()
    assert SMALLER.keys() < PARTS["first"].keys()

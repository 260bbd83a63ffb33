"""A run on several devices, as real processes: the run of one, which may go on with another number, and ends whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_core import config
from ssl_core.distributed import process_group
from ssl_core.errors import ConfigUnfit
from ssl_core.events import Checkpoint, Log, Metrics, Resolved, Result, Stopped, from_line
from ssl_core.inputs import Inputs
from ssl_core.run import run
from tests import shadows
from tests.ssl_core.digits import TINY, pack_digits

# Plain SGD in fp32: rounding, which differs with the number of processes, does not grow.
CONFIG = TINY | {
    "method": {"name": "simsiam", "projector": [32, 16]},
    "epochs": 6,
    "checkpoints": {"every_steps": 3},
    "precision": "fp32",
    "optimizer": {"name": "sgd", "lr": 0.01},
    "evaluation": {"every_epochs": 3},
    "phases": [{"until": 0.75, "image_size": 8}, {"until": 1.0, "image_size": 16}],
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    imported = shadows.fill(folder / "shadows")
    yield pack_digits(folder)
    assert not imported.exists(), f"imported from the working directory: {imported.read_text()}"


def start(folder: Path, digits: Path, **fields):
    folder.mkdir(exist_ok=True)
    asked = {name: value for name, value in (CONFIG | fields).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(asked))
    command = [sys.executable, "-P", "-m", "ssl_core", "run", folder / "config.json", "--data", digits, "--out", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, "--events"], **pipes, env=environment, cwd=digits / "shadows")


def done(folder, digits, **fields):
    with start(folder, digits, **fields) as process:
        lines, trace = process.communicate(timeout=200)
    events = [from_line(line) for line in lines.splitlines()]
    assert events, trace.decode()[-3000:]
    return events


@pytest.fixture(scope="module")
def alone(digits, tmp_path_factory):
    """The events and the folder of the run on one device, without an interruption."""
    folder = tmp_path_factory.mktemp("alone")
    return list(run(config.parse(CONFIG), Inputs(digits), folder)), folder


def accuracies(events, name="online/knn"):
    """The steps with an online evaluation, and its accuracies."""
    found = [event for event in events if isinstance(event, Metrics) and name in event.values]
    return {event.step: event.values[name] for event in found}


def assert_same(folder, alone):
    mine, whole = (load_file(place / "model" / "weights.safetensors") for place in (folder, alone[1]))
    assert mine.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-4, msg=name)


def losses(events):
    """Each step with its loss, in the order of the events; the steps before a kill are made again."""
    found = [event for event in events if isinstance(event, Metrics) and "train/loss" in event.values]
    return [(event.step, event.values["train/loss"]) for event in found]


def test_a_run_on_two_devices_that_is_stopped_and_goes_on_with_one_and_with_two_trains_the_network_of_one(
    digits, alone, tmp_path
):
    folder, told = tmp_path / "run", []
    for devices, until, end in ((2, 4, signal.SIGTERM), (1, 8, signal.SIGKILL)):
        with start(folder, digits, devices=devices) as process:
            for line in process.stdout:
                told.append(from_line(line))
                if isinstance(told[-1], Metrics) and told[-1].step >= until:
                    break
            process.send_signal(end)
            told += whole(process.stdout)
        if end == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL  # else the fault never happened
        else:
            assert isinstance(told[-1], Stopped)
            assert [event.step for event in told if isinstance(event, Checkpoint)][-1] == told[-1].step
    told += done(folder, digits, devices=2)
    assert isinstance(told[-1], Result)
    assert sum(isinstance(event, Resolved) for event in told) == 3  # of three runs: a second process says nothing
    assert sum(isinstance(event, Log) and event.code == "resumed" for event in told) == 2
    whole_losses = dict(losses(alone[0]))
    assert {step for step, _ in losses(told)} == whole_losses.keys() == set(range(1, 25))
    for step, loss in losses(told):
        assert loss == pytest.approx(whole_losses[step], rel=1e-3, abs=1e-4), step
    assert accuracies(told).keys() == {12, 24}
    assert accuracies(told) == pytest.approx(accuracies(alone[0]), abs=0.05)  # two of 40 images
    assert_same(folder, alone)


def test_a_run_on_two_devices_stops_early_when_a_run_on_one_does(digits, tmp_path):
    fields = {"epochs": 40, "evaluation": {"every_epochs": 1}, "early_stop": {"metric": "knn", "patience": 1}}
    ended = {}
    for devices in (1, 2):
        told = done(tmp_path / str(devices), digits, devices=devices, **fields)
        assert isinstance(told[-1], Result), told[-1]
        ended[devices] = (told[-1].summary["stopped_early"], told[-1].summary["steps"], accuracies(told))
    assert ended[1][0]
    assert ended[2][:2] == ended[1][:2]
    assert ended[2][2] == pytest.approx(ended[1][2], abs=0.05)


def test_a_run_on_two_devices_that_stops_early_is_evaluated_at_its_last_step(digits, tmp_path):
    fields = {"epochs": 99, "evaluation": {"every_epochs": 99}, "early_stop": {"metric": "rankme", "patience": 1}}
    told = done(tmp_path / "run", digits, devices=2, **fields)
    assert isinstance(told[-1], Result), told[-1]
    assert told[-1].summary["stopped_early"]
    assert list(accuracies(told)) == [told[-1].summary["steps"]]


def test_a_classifier_of_two_devices_that_was_stopped_goes_on_to_the_accuracy_of_one(digits, tmp_path):
    fields = {"kind": "supervised", "method": None, "evaluation": {"every_epochs": 1}}
    alone = done(tmp_path / "alone", digits, **fields)
    folder = tmp_path / "run"
    with start(folder, digits, devices=2, **fields) as process:
        for line in process.stdout:
            if isinstance(event := from_line(line), Metrics) and event.step >= 4:
                break
        process.send_signal(signal.SIGTERM)
        told = whole(process.stdout)
    assert isinstance(told[-1], Stopped)
    told += done(folder, digits, devices=2, **fields)
    assert isinstance(told[-1], Result), told[-1]
    assert told[-1].summary["top1"] == pytest.approx(alone[-1].summary["top1"], abs=0.05)
    assert accuracies(told, "online/top1")[24] == pytest.approx(accuracies(alone, "online/top1")[24], abs=0.05)


def whole(lines):
    """The events of whole lines; the last one of a killed process may be torn."""
    return [from_line(line) for line in lines if line.endswith(b"\n")]


def test_the_processes_of_a_run_die_with_their_launcher(digits, tmp_path):
    with start(tmp_path / "run", digits, devices=2, epochs=5000) as process:
        for line in process.stdout:
            if isinstance(from_line(line), Metrics):
                break
        mark = str(tmp_path / "run" / "config.json").encode()
        ranks = [pid for pid in running(mark) if pid != process.pid]
        assert len(ranks) == 2
        process.kill()
    deadline = time.monotonic() + 30
    while running(mark):
        assert time.monotonic() < deadline, "training goes on without anybody who listens"
        time.sleep(0.05)


def running(mark: bytes) -> list[int]:
    """The processes with the mark in their command line, those that only wait to be buried left out."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("device", "what"), [("cuda", "GPUs"), ("cpu", "processors")])
def test_more_devices_than_there_are_are_refused_before_anything_is_started(device, what):
    count = process_group.count_devices(device) + 1
    with pytest.raises(ConfigUnfit, match=what), process_group.process_group(max(2, count), device):
        pass
    assert process_group.launch(max(2, count), device) is None  # and has not become torchrun


def test_a_run_of_several_devices_is_not_one_process(monkeypatch):
    monkeypatch.setattr(process_group, "count_devices", lambda device: 2)
    with pytest.raises(ConfigUnfit, match="a process for each"), process_group.process_group(2, "cpu"):
        pass

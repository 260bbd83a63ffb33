"""The command line: a run alone, a run under a supervisor, kills at any moment, and what it refuses."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ssl_core import config
from ssl_core.__main__ import main
from ssl_core.evaluation import linear_checkpoint
from ssl_core.events import Checkpoint, Failed, Metrics, Model, Resolved, Result, Stopped, from_line
from ssl_core.inputs import Inputs
from ssl_core.run import run
from tests.ssl_core.digits import TINY, pack_digits, write_folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return pack_digits(tmp_path_factory.mktemp("digits"))


def write_config(folder: Path, **fields) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"kind": "pretrain", "method": {"name": "simclr"}, "epochs": 2, **TINY, **fields}))
    return path


def start(config_file: Path, data: Path, out: Path, *more: str, **settings) -> subprocess.Popen:
    command = [sys.executable, "-m", "ssl_core", "run", config_file, "--data", data, "--out", out, "--events", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **settings)


def read_until(process: subprocess.Popen, reached) -> list:
    """The process's events up to the first for which `reached` is true; all of them if there is none."""
    events = []
    for line in process.stdout:
        events.append(from_line(line))
        if reached(events[-1]):
            break
    return events


@pytest.mark.parametrize("name", ["dino"])  # every method, in one process: test_resume.py
def test_a_run_killed_again_and_again_ends_with_the_same_weights(name, digits, tmp_path):
    fields = {
        "method": {"name": name, "projector": [32, 16]},
        "epochs": 12,
        "checkpoints": {"every_steps": 3},
        "evaluation": {"every_epochs": 6},
    }
    (tmp_path / "whole").mkdir()
    asked = config.parse(json.loads(write_config(tmp_path, **fields).read_text()))
    whole = [event for event in run(asked, Inputs(digits), tmp_path / "whole") if isinstance(event, Model)]
    steps, kills = [], 0
    for at in (1, 8, 15):
        with start(tmp_path / "config.json", digits, tmp_path / "out") as process:
            events = read_until(process, lambda event, at=at: isinstance(event, Metrics) and event.step >= at)
            process.kill()
        assert process.returncode == -signal.SIGKILL  # else the fault never happened
        kills += 1
        assert isinstance(events[0], Resolved)
        steps.extend(event.step for event in events if isinstance(event, Metrics) and "train/loss" in event.values)
    with start(tmp_path / "config.json", digits, tmp_path / "out") as process:
        events = read_until(process, lambda _: False)
    assert (kills, process.returncode) == (3, 0)
    steps.extend(event.step for event in events if isinstance(event, Metrics) and "train/loss" in event.values)
    assert set(steps) == set(range(1, 49))  # replays there may be, gaps there are none
    assert isinstance(events[-1], Result)
    assert [event.sha256 for event in events if isinstance(event, Model)] == [whole[0].sha256]
    assert len(list((tmp_path / "whole").glob("*.pt"))) == 2
    saved = {event.path for event in events if isinstance(event, Checkpoint)}
    assert saved <= {path.name for path in (tmp_path / "out").glob("*.pt")}  # the reader of the events deletes them
    assert len(saved) > 2


def test_a_network_that_memory_cannot_hold_fails_in_a_sentence_and_is_not_tried_again(digits, tmp_path):
    settings = write_config(tmp_path, method={"name": "simclr", "projector": [16_384] * 8})  # 1 GiB for each layer
    # This process has imported what a run imports; one layer more fits.
    limits = (psutil.Process().memory_info().vms + 3 * 2**29,) * 2
    with start(
        settings, digits, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limits)
    ) as process:
        *_, last = read_until(process, lambda _: False)
    assert isinstance(last, Failed)
    assert (last.code, last.retry) == ("out_of_memory", False)


def test_sigterm_leaves_a_checkpoint_from_which_another_folder_goes_on(digits, tmp_path):
    settings = write_config(tmp_path, epochs=200)
    with start(settings, digits, tmp_path / "a") as process:
        read_until(process, lambda event: isinstance(event, Metrics))
        process.terminate()
        rest = read_until(process, lambda _: False)
    assert process.returncode == 75
    assert isinstance(rest[-1], Stopped)
    saved = rest[-2]
    assert isinstance(saved, Checkpoint)
    assert saved.step == rest[-1].step
    with start(settings, digits, tmp_path / "b", "--resume", str(tmp_path / "a" / saved.path)) as process:
        events = read_until(process, lambda event: isinstance(event, Metrics))
        process.kill()
    assert events[-1].step == saved.step + 1


def test_nobody_listening_ends_the_run_without_a_trace(digits, tmp_path):
    with start(write_config(tmp_path, epochs=2000), digits, tmp_path / "out", stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 70
    assert errors == ""


@pytest.fixture
def _signals():
    """Put the signal handlers back that a run in this process replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
class TestAlone:
    """Runs in this process, as somebody at a terminal sees them."""

    def test_a_plain_folder_of_images_trains_with_a_bar_and_a_table(self, tmp_path, capsys):
        folder = write_folder(tmp_path / "images", 40)
        arguments = ["run", str(write_config(tmp_path)), "--data", str(folder), "--out", str(tmp_path / "out")]
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert "Result" in shown
        assert "loss" in shown
        assert (tmp_path / "out" / "model" / "model.json").is_file()

    def test_a_finished_model_is_judged(self, digits, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(["run", str(write_config(tmp_path)), "--data", str(digits), "--out", str(out)]) == 0
        judge = tmp_path / "judge.json"
        judge.write_text(json.dumps({"kind": "knn_eval", "k": 5, "baselines": ["pixels"]}))
        more = ["--out", str(tmp_path / "judged"), "--model", str(out / "model")]
        assert main(["run", str(judge), "--data", str(digits), *more]) == 0
        shown = capsys.readouterr().out
        assert "pixels" in shown
        assert " to " in shown  # the interval

    def test_an_evaluation_goes_on_from_its_own_checkpoints_beside_those_of_training(
        self, digits, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setattr(linear_checkpoint, "_EVERY_SECONDS", 0.0)
        out, judge = tmp_path / "out", tmp_path / "judge.json"
        assert main(["run", str(write_config(tmp_path)), "--data", str(digits), "--out", str(out)]) == 0
        trained = {path.name: path.read_bytes() for path in out.glob("checkpoint-*.pt")}
        judge.write_text(json.dumps({"kind": "linear_eval", "augment": True, "epochs": 2}))
        for goes_on in (False, True):
            capsys.readouterr()
            more = ["--out", str(out), "--model", str(out / "model")]
            assert main(["run", str(judge), "--data", str(digits), *more]) == 0
            shown = capsys.readouterr().out
            assert "starts anew" not in shown
            assert ("Going on from the checkpoint" in shown) == goes_on
        assert {path.name: path.read_bytes() for path in out.glob("checkpoint-*.pt")} == trained

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "not JSON"),
            ("[]", "kind"),
            ('{"kind": "nothing"}', "kind"),
            ('{"method": {"name": "simclr", "temprature": 1}}', "temperature"),
            ('{"method": {"name": "simclr"}, "epochs": 0}', "/epochs"),
            ('{"method": {"name": "simclr"}, "minutes": NaN}', "/minutes: Input should be a finite number"),
            ('{"method": {"name": "simclr"}, "minutes": Infinity}', "/minutes: Input should be a finite number"),
            ('{"method": {"name": "simclr"}, "optimizer": {"name": "sgd", "lr": -Infinity}}', "/optimizer/lr"),
            ('{"method": {"name": "simclr"}, "minutes": 1e999}', "/minutes: Input should be a finite number"),
        ],
    )
    def test_a_wrong_config_is_refused_in_a_sentence(self, text, words, digits, tmp_path, capsys):
        path = tmp_path / "config.json"
        path.write_text(text)
        assert main(["run", str(path), "--data", str(digits), "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err

    def test_a_wrong_folder_is_refused_in_a_sentence(self, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        for data in (tmp_path / "nowhere", tmp_path / "empty"):
            arguments = ["run", str(write_config(tmp_path)), "--data", str(data), "--out", str(tmp_path / "out")]
            assert main(arguments) == 2
            assert str(data) in capsys.readouterr().err

    def test_under_a_supervisor_a_refusal_is_an_event(self, digits, tmp_path, capsys):
        path = tmp_path / "config.json"
        path.write_text("{")
        assert main(["run", str(path), "--data", str(digits), "--out", str(tmp_path / "out"), "--events"]) == 1
        event = from_line(capsys.readouterr().out)
        assert isinstance(event, Failed)
        assert not event.retry
        config, nowhere = write_config(tmp_path), tmp_path / "nowhere"
        assert main(["run", str(config), "--data", str(nowhere), "--out", str(tmp_path / "out"), "--events"]) == 1
        assert from_line(capsys.readouterr().out).message == "The folder of the dataset is missing."  # without its path

    def test_a_run_that_cannot_be_done_fails_with_its_sentence(self, digits, tmp_path, capsys):
        settings = write_config(tmp_path, batch_size=500)
        assert main(["run", str(settings), "--data", str(digits), "--out", str(tmp_path / "out")]) == 1
        assert "batch_size is 500" in capsys.readouterr().out

    def test_what_is_out_of_reach_is_told_and_may_be_tried_again(self, digits, tmp_path, capsys):
        asked = ["run", str(write_config(tmp_path)), "--data", str(digits), "--out", str(tmp_path / "out")]
        assert main([*asked, "--model", str(tmp_path / "nowhere")]) == 70
        assert "model.json is missing" in capsys.readouterr().out
        assert main([*asked, "--resume", str(tmp_path / "nowhere.pt")]) == 70
        assert "nowhere.pt cannot be read" in capsys.readouterr().out

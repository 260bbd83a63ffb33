"""Runs from config to model on real digits: their events, their end, and the ways in which they fail."""

import errno
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from ssl_core import config
from ssl_core.data.dataset import Dataset
from ssl_core.distributed import collectives, process_group
from ssl_core.events import Checkpoint, Failed, Log, Metrics, Model, Progress, Resolved, Result, Stopped, to_line
from ssl_core.inputs import Inputs
from ssl_core.methods import METHODS, simclr
from ssl_core.run import run
from ssl_core.serialization import checkpoint, saved_model
from ssl_core.training import saving
from ssl_core.training.learner import Learner
from ssl_core.training.loop import Training
from ssl_core.training.saving import versions
from ssl_core.training.training_data import TrainingData
from tests.ssl_core.digits import TINY, pack_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return pack_digits(tmp_path_factory.mktemp("digits"))


def go(digits, directory, inputs=None, **fields):
    asked = config.parse({"method": {"name": "simclr"}, "epochs": 4, **TINY, **fields})
    directory.mkdir(exist_ok=True)
    return list(run(asked, Inputs(digits, **(inputs or {})), directory))


def kinds(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("name", METHODS)
def test_two_images_are_a_batch_of_every_method(name, digits, tmp_path):
    events = go(digits, tmp_path, method={"name": name}, epochs=1, subset=2, batch_size="auto")
    assert events[0].config["batch_size"] == 2
    assert isinstance(events[-1], Result)
    assert events[-1].summary["steps"] == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_run_tells_its_story_and_leaves_a_model(name, digits, tmp_path):
    events = go(digits, tmp_path, method={"name": name}, evaluation={"every_epochs": 2, "knn_k": 5})
    assert isinstance(events[0], Resolved)
    assert isinstance(events[-2], Model)
    assert isinstance(events[-1], Result)
    assert all(to_line(event) for event in events)
    summary = events[-1].summary
    assert (summary["epochs"], summary["steps"], summary["collapsed"]) == (4, 16, False)
    assert 0 <= summary["knn"] <= 1
    model = events[-2]
    encoder = saved_model.load(tmp_path / model.path)
    features = encoder.encode(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    assert features.shape == (2, model.dim)
    assert features.isfinite().all()


def test_neither_training_nor_judging_loads_torchs_compiler(digits, tmp_path):
    # It takes longer than all the rest of a start.
    code = (
        "import sys\n"
        "from tests.ssl_core import test_run\n"
        "from tests.ssl_core.training import test_labelled_runs\n"
        "digits, out = map(test_run.Path, sys.argv[1:])\n"
        "for name in ('sgd', 'adamw', 'lars', 'muon'):\n"
        "    test_run.go(digits, out / name, epochs=1, optimizer={'name': name})\n"
        "test_run.go(digits, out / 'whole', evaluation={'every_epochs': 1})\n"
        "inputs = {'checkpoint': next((out / 'whole').glob('*.pt'))}\n"
        "assert isinstance(test_run.go(digits, out / 'rest', inputs)[-1], test_run.Result)\n"
        "for kind in ('knn_eval', 'linear_eval'):\n"
        "    asked = test_run.config.parse({'epochs': 2} if kind == 'linear_eval' else {}, kind)\n"
        "    [*_, last] = test_run.run(asked, test_run.Inputs(digits, out / 'whole' / 'model'), out)\n"
        "    assert isinstance(last, test_run.Result), last\n"
        "test_labelled_runs.go('supervised', digits, out / 'supervised')\n"
        "print('torch._dynamo' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(digits), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_metrics_of_a_step_come_before_its_checkpoint(digits, tmp_path):
    events = go(digits, tmp_path, checkpoints={"every_steps": 3, "keep": 2}, evaluation={"every_epochs": 1})
    seen, saved = 0, []
    for event in events:
        if isinstance(event, Metrics):
            assert event.step >= max([seen, *(point + 1 for point in saved)])
            seen = event.step
        if isinstance(event, Checkpoint):
            assert event.step == seen
            saved.append(event.step)
    assert saved == [3, 6, 9, 12, 15, 16]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["checkpoint-000000015.pt", "checkpoint-000000016.pt"]


def test_a_run_cannot_be_told_to_keep_but_one_checkpoint():
    # It would be deleted before anybody has noted that there is another.
    with pytest.raises(ValidationError, match="keep"):
        config.parse({"method": {"name": "simclr"}, "checkpoints": {"keep": 1}})


def test_every_metric_is_there_at_its_steps(digits, tmp_path):
    events = go(digits, tmp_path, evaluation={"every_epochs": 2})
    steps = {}
    for event in kinds(events, Metrics):
        for name, value in event.values.items():
            assert value is not None
            assert math.isfinite(value)
            steps.setdefault(name, []).append(event.step)
    every, epochs = list(range(1, 17)), [4, 8, 12, 16]
    often = ("loss", "lr", "images_per_second", "data_wait", "std", "grad_norm")
    expected = {f"train/{name}": every for name in often}
    rare = ("rankme", "alpha_req", "alignment", "uniformity", "contrastive_top1")
    expected |= {f"train/{name}": epochs for name in rare}
    assert steps == expected | {"online/knn": [8, 16], "online/linear": [8, 16]}
    last = kinds(events, Progress)[-1]
    assert (last.epoch, last.step, last.total_steps, last.eta_seconds) == (4, 16, 16, 0)


def test_image_sizes_change_at_the_phases_steps(digits, tmp_path, monkeypatch):
    sizes = []
    view_maker = Learner._views

    def watched(self, given):
        views = view_maker(self, given)
        sizes.append(views[0].shape[-1])
        return views

    monkeypatch.setattr(Learner, "_views", watched)
    go(digits, tmp_path)
    assert sizes == [8] * 8 + [16] * 8


def test_without_labels_only_label_free_metrics_are_measured(tmp_path):
    plain = pack_digits(tmp_path / "plain", labels=False)
    events = go(plain, tmp_path / "out")
    names = {name for event in kinds(events, Metrics) for name in event.values}
    assert {"train/std", "train/rankme"} <= names
    assert not {"online/knn", "online/linear"} & names
    assert events[-1].summary["knn"] is None


def test_labels_do_not_change_the_weights(digits, tmp_path):
    plain = pack_digits(tmp_path / "plain", labels=False)
    # Unlabelled images stand in another order, so that only the same rows in the same order can be compared.
    one = kinds(go(plain, tmp_path / "a", evaluation={"every_epochs": 0}), Model)
    two = kinds(go(plain, tmp_path / "b", evaluation={"every_epochs": 1}), Model)
    assert one[0].sha256 == two[0].sha256
    one = kinds(go(digits, tmp_path / "c", evaluation={"every_epochs": 0}), Model)
    two = kinds(go(digits, tmp_path / "d", evaluation={"every_epochs": 1}), Model)
    assert one[0].sha256 == two[0].sha256


def test_another_seed_gives_other_weights(digits, tmp_path):
    models = [kinds(go(digits, tmp_path / str(seed), seed=seed), Model)[0] for seed in (0, 1)]
    assert models[0].sha256 != models[1].sha256


@pytest.mark.parametrize("optimizer", [{"name": "adamw"}, {"name": "lars"}, {"name": "muon"}, {"name": "sgd"}])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(optimizer, digits, tmp_path):
    fields = {"optimizer": optimizer, "backbone": TINY["backbone"]}
    whole = kinds(go(digits, tmp_path / "whole", **fields), Model)[0]
    calls = iter(range(100))
    first = go(digits, tmp_path / "first", {"stop": lambda: next(calls) == 7}, **fields)
    assert isinstance(first[-1], Stopped)
    assert isinstance(first[-2], Checkpoint)
    assert first[-1].step == first[-2].step == 7
    rest = go(digits, tmp_path / "second", {"checkpoint": tmp_path / "first" / first[-2].path}, **fields)
    assert isinstance(rest[0], Resolved)
    assert min(event.step for event in kinds(rest, Metrics)) == 8
    assert kinds(rest, Model)[0].sha256 == whole.sha256


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(digits, tmp_path, monkeypatch):
    whole = kinds(go(digits, tmp_path / "whole"), Model)[0]
    full, save = iter([True, True, False]), checkpoint.save

    def save_or_not(directory, step, state):
        if next(full, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(directory, step, state)

    monkeypatch.setattr(checkpoint, "save", save_or_not)
    events = go(digits, tmp_path / "full", checkpoints={"every_steps": 2})
    told = [event.data["step"] for event in kinds(events, Log) if event.code == "storage_full"]
    assert told == [2, 4]
    assert kinds(events, Checkpoint)[0].step == 6
    assert kinds(events, Model)[0].sha256 == whole.sha256


class Full:
    """A disk without room for models, for so many tries."""

    def __init__(self, monkeypatch, tries):
        self.tries, self._save = tries, saved_model.save
        monkeypatch.setattr(saved_model, "save", self.save)
        monkeypatch.setattr(saving, "_RETRY_SECONDS", 0.01)

    def save(self, *given):
        self.tries -= 1
        if self.tries >= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._save(*given)


def test_a_model_waits_for_room(digits, tmp_path, monkeypatch):
    whole = kinds(go(digits, tmp_path / "whole"), Model)[0]
    Full(monkeypatch, tries=2)
    events = go(digits, tmp_path / "full")
    assert [event.code for event in kinds(events, Log)] == ["storage_full"] * 2
    assert kinds(events, Model)[0].sha256 == whole.sha256
    assert isinstance(events[-1], Result)


def test_a_run_that_is_stopped_while_its_model_waits_goes_on_from_its_end(digits, tmp_path, monkeypatch):
    whole = kinds(go(digits, tmp_path / "whole"), Model)[0]
    disk = Full(monkeypatch, tries=100)
    events = go(digits, tmp_path / "full", {"stop": lambda: disk.tries < 98})
    assert events[-1] == Stopped(16)
    assert kinds(events, Model) == []
    disk.tries = 0
    saved = tmp_path / "full" / kinds(events, Checkpoint)[-1].path
    assert kinds(go(digits, tmp_path / "rest", {"checkpoint": saved}), Model)[0].sha256 == whole.sha256


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (errno.ENOSPC, "storage_full", "The storage is full."),
        (errno.EIO, "storage", "The storage cannot be read or written: Input/output error."),
    ],
)
def test_a_storage_that_fails_is_for_another_attempt(digits, tmp_path, monkeypatch, number, code, message):
    def fail(*_):
        raise OSError(number, "reason", "/a/path/of/the/server")

    monkeypatch.setattr(saving, "fingerprint", fail)
    failed = go(digits, tmp_path, checkpoints={"every_steps": 1})[-1]
    assert (failed.code, failed.message, failed.retry) == (code, message, True)


@pytest.mark.parametrize(
    "sentence",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "FIND was unable to find an engine to execute this computation",
        "NCCL error in: ProcessGroupNCCL.cpp, unhandled cuda error\nLast error:\nFailed to CUDA calloc async 4 bytes",
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory",
        "could not create a primitive",
    ],
)
def test_every_sentence_of_too_little_memory_is_known_and_names_what_to_lower(digits, tmp_path, monkeypatch, sentence):
    def fail(*_, **__):
        raise RuntimeError(sentence)

    monkeypatch.setattr(Learner, "advance", fail)
    failed = go(digits, tmp_path, batch_size=64)[-1]
    assert (failed.code, failed.retry) == ("out_of_memory", False)
    assert failed.data == {"batch_size": 64, "image_size": 16}
    advice = "lower one of them, or set chunk_size, which keeps the batch and takes less."
    assert failed.message == f"The device has too little memory for batch_size 64 and image_size 16: {advice}"


def test_another_error_of_a_gpu_is_an_error(digits, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Learner, "advance", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        go(digits, tmp_path)


def test_dropout_is_counted_too(digits, tmp_path):
    fields = {"backbone": {"name": "torchvision_mobilenet_v3_small"}, "phases": [{"until": 1.0, "image_size": 16}]}
    fields |= {"optimizer": {"name": "sgd"}, "evaluation": {"every_epochs": 0}}
    whole = kinds(go(digits, tmp_path / "whole", epochs=1, **fields), Model)[0]
    calls = iter(range(100))
    first = go(digits, tmp_path / "first", {"stop": lambda: next(calls) == 2}, epochs=1, **fields)
    saved = tmp_path / "first" / first[-2].path
    rest = go(digits, tmp_path / "second", {"checkpoint": saved}, epochs=1, **fields)
    assert kinds(rest, Model)[0].sha256 == whole.sha256


def test_a_finished_run_goes_on_to_its_model_at_once(digits, tmp_path):
    events = go(digits, tmp_path / "a")
    saved = kinds(events, Checkpoint)[-1]
    again = go(digits, tmp_path / "b", {"checkpoint": tmp_path / "a" / saved.path})
    assert not kinds(again, Metrics)
    assert kinds(again, Model)[0].sha256 == kinds(events, Model)[0].sha256
    assert again[-1].summary["knn"] == events[-1].summary["knn"]


def test_minutes_become_epochs_that_a_resume_keeps(digits, tmp_path):
    fields = {"minutes": 0.01, "epochs": None}
    events = go(digits, tmp_path / "a", **fields)
    resolved = events[0].config
    assert resolved["minutes"] is None
    assert resolved["epochs"] >= 1
    assert config.parse(resolved) == config.parse(json.loads(json.dumps(resolved)))
    saved = tmp_path / "a" / kinds(events, Checkpoint)[-1].path
    assert go(digits, tmp_path / "b", {"checkpoint": saved}, **fields)[0].config == resolved
    assert kinds(go(digits, tmp_path / "c", **resolved), Model)[0].sha256 == kinds(events, Model)[0].sha256


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint(digits, tmp_path):
    wild = {
        "optimizer": {"name": "sgd", "lr": 1000, "weight_decay": 1.0},
        "checkpoints": {"every_steps": 1, "keep": 100},
    }
    schedule = {"lr_scaling": "none", "warmup_epochs": 3.9}
    method = {"name": "simclr", "projector_batch_norm": False}
    events = go(digits, tmp_path, epochs=12, method=method, schedule=schedule, precision="fp32", **wild)
    failed = events[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retry) == ("diverged", False)
    kept = kinds(events, Checkpoint)
    assert kept
    assert failed.data["checkpoint"] == kept[-1].path
    assert kept[-1].path in failed.message
    assert f"step {failed.data['step']} of" in failed.message
    assert failed.data["step"] == kept[-1].step + 1
    learner = learner_of(digits, events[0].config)
    assert failed.data["rows"] == rows_of_step(learner, failed.data["step"])
    assert to_line(failed)
    for saved in kept:
        weights = checkpoint.load(tmp_path / saved.path)["method"]
        assert all(value.isfinite().all() for name, value in weights.items() if "running" not in name)


def learner_of(digits, resolved):
    resolved = config.parse(resolved)
    data = TrainingData.of(Dataset.open(digits), resolved)
    return Learner(resolved, data)


def rows_of_step(learner, step):
    return next(itertools.islice(learner.batches(), step - 1, None)).tolist()


def test_a_loss_that_is_no_number_at_once_has_no_checkpoint_to_name(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(simclr, "nt_xent", lambda z1, z2, **settings: (z1 * math.nan).sum())
    failed = go(digits, tmp_path)[-1]
    assert (failed.code, failed.data["step"], failed.data["checkpoint"]) == ("diverged", 1, None)
    assert len(failed.data["rows"]) == 16


# Nothing is a new best by so much, so the first measurement is the best there will be.
HOPELESS = {"patience": 2, "min_delta": 1000.0}


def test_a_run_that_gets_no_better_ends_early_as_a_success(digits, tmp_path):
    evaluation = {"every_epochs": 2, "knn_k": 5}
    events = go(digits, tmp_path, epochs=20, early_stop=HOPELESS, evaluation=evaluation)
    assert isinstance(events[-1], Result)
    assert (events[-1].summary["stopped_early"], events[-1].summary["epochs"], events[-1].summary["steps"]) == (
        True,
        3,
        12,
    )
    (told,) = [event for event in kinds(events, Log) if event.code == "stopped_early"]
    assert told.data["step"] == 12
    judged = [event.step for event in kinds(events, Metrics) if "online/knn" in event.values]
    assert judged == [8, 12]  # at its end too
    assert kinds(events, Model)[0].card["metrics"]["train/rankme"] is not None
    saved = tmp_path / kinds(events, Checkpoint)[-1].path
    again = go(digits, tmp_path / "again", {"checkpoint": saved}, epochs=20, early_stop=HOPELESS, evaluation=evaluation)
    assert not kinds(again, Metrics)
    assert again[-1].summary["epochs"] == 3
    assert kinds(again, Model)[0].sha256 == kinds(events, Model)[0].sha256


def test_patience_survives_a_stop(digits, tmp_path):
    fields = {"epochs": 20, "early_stop": {**HOPELESS, "metric": "knn"}, "evaluation": {"every_epochs": 1, "knn_k": 5}}
    whole = go(digits, tmp_path / "whole", **fields)
    calls = iter(range(100))
    first = go(digits, tmp_path / "first", {"stop": lambda: next(calls) == 9}, **fields)
    rest = go(digits, tmp_path / "rest", {"checkpoint": tmp_path / "first" / first[-2].path}, **fields)
    assert rest[-1].summary["steps"] == whole[-1].summary["steps"] == 12
    assert kinds(rest, Model)[0].sha256 == kinds(whole, Model)[0].sha256


def test_a_run_that_gets_better_runs_to_its_end(digits, tmp_path):
    summary = go(digits, tmp_path, early_stop={"patience": 4})[-1].summary
    assert (summary["stopped_early"], summary["epochs"]) == (False, 4)


def test_early_stop_on_what_is_never_measured_is_refused(tmp_path):
    plain = pack_digits(tmp_path / "plain", labels=False)
    failed = go(plain, tmp_path / "out", early_stop={"metric": "knn"})[-1]
    assert (failed.code, failed.retry) == ("labels_needed", False)
    assert "early_stop" in failed.message
    with pytest.raises(ValidationError, match="every_epochs"):
        config.parse({"method": {"name": "simclr"}, "early_stop": {"metric": "knn"}, "evaluation": {"every_epochs": 0}})


def test_a_collapse_is_told_once(digits, tmp_path):
    # So strong a decay leaves nothing of the weights but biases, which are the same for every image.
    method = {"name": "simclr", "projector_batch_norm": False}
    decay = {"name": "sgd", "lr": 0.5, "weight_decay": 1.0}
    events = go(
        digits, tmp_path, epochs=12, method=method, optimizer=decay, schedule={"lr_scaling": "none"}, precision="fp32"
    )
    warnings = [event for event in kinds(events, Log) if event.code == "collapse"]
    assert len(warnings) == 1
    assert warnings[0].level == "warning"
    assert warnings[0].data["std"] < 0.05 or warnings[0].data["rankme"] < 1.5
    assert events[-1].summary["collapsed"]


def test_a_run_starts_from_a_model(digits, tmp_path):
    go(digits, tmp_path / "a")
    slow = {"optimizer": {"name": "sgd", "lr": 1e-9}, "epochs": 1}
    start = tmp_path / "a" / "model"
    events = go(digits, tmp_path / "b", {"model": start}, **slow, backbone={"weights": "imagenet"})
    assert events[0].config["backbone"]["width"] == 0.125
    pixels = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
    before, after = (saved_model.load(folder) for folder in (start, tmp_path / "b" / "model"))
    torch.testing.assert_close(before.backbone.conv1.weight, after.backbone.conv1.weight, atol=1e-5, rtol=0)
    assert before.encode(pixels).shape == after.encode(pixels).shape


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"batch_size": 100}, "config_unfit", "batch_size"),
        ({"batch_size": 100, "minutes": 1.0, "epochs": None}, "config_unfit", "batch_size"),
        ({"subset": 99}, "config_unfit", "subset"),
        ({"backbone": {"name": "torchvision_alexnet"}}, "config_unfit", "8 pixels"),
    ],
)
def test_what_cannot_be_run_fails_in_a_sentence_and_is_not_tried_again(fields, code, words, digits, tmp_path):
    failed = go(digits, tmp_path, **fields)[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retry) == (code, False)
    assert words in failed.message


def test_a_checkpoint_of_another_run_is_refused(digits, tmp_path):
    saved = tmp_path / "a" / kinds(go(digits, tmp_path / "a"), Checkpoint)[-1].path
    other = go(digits, tmp_path / "b", {"checkpoint": saved}, method={"name": "simclr", "temperature": 0.7})[-1]
    assert (other.code, other.retry) == ("bad_checkpoint", False)
    assert "method.temperature" in other.message
    images = pack_digits(tmp_path / "fewer", train=64)
    assert "other images" in go(images, tmp_path / "b", {"checkpoint": saved})[-1].message
    saved.write_bytes(saved.read_bytes()[:1000])
    damaged = go(digits, tmp_path / "b", {"checkpoint": saved})[-1]
    assert (damaged.code, damaged.retry) == ("bad_checkpoint", False)


def test_a_dataset_that_is_out_of_reach_may_come_back(tmp_path):
    failed = go(tmp_path / "unmounted", tmp_path / "out")[-1]
    assert (failed.code, failed.retry) == ("bad_dataset", True)


@pytest.mark.parametrize(
    ("inputs", "code"),
    [({"checkpoint": Path("gone.pt")}, "bad_checkpoint"), ({"model": Path("gone")}, "model_missing")],
)
def test_a_checkpoint_or_a_model_that_is_out_of_reach_may_come_back(inputs, code, digits, tmp_path):
    failed = go(digits, tmp_path / "out", inputs)[-1]
    assert (failed.code, failed.retry) == (code, True)


@pytest.mark.parametrize("file", ["dataset.json", "images.arrow", "pixels.npy"])
@pytest.mark.parametrize("damage", ["emptied", "cut", "other", "twisted", "flipped", "removed"])
def test_a_damaged_dataset_is_refused_for_good(damage, file, digits, tmp_path):
    folder = shutil.copytree(digits, tmp_path / "damaged")
    data = (folder / file).read_bytes()
    twisted = data[:-300] + b"\xff" * 288 + data[-12:] if file == "images.arrow" else b"{" * len(data)
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    harmed = {
        "flipped": flipped,
        "emptied": b"",
        "cut": data[: len(data) // 2],
        "other": b"no such thing " * 100,
        "twisted": twisted,
    }
    (folder / file).unlink() if damage == "removed" else (folder / file).write_bytes(harmed[damage])
    failed = go(folder, tmp_path / "out")[-1]
    assert (failed.code, failed.retry, failed.data) == ("corrupt", False, {"file": file})


def test_a_damaged_model_is_refused_for_good(digits, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("no card")
    failed = go(digits, tmp_path / "out", {"model": tmp_path / "model"})[-1]
    assert (failed.code, failed.retry) == ("corrupt", False)


def test_a_checkpoint_of_other_versions_is_taken_with_a_warning(digits, tmp_path, monkeypatch):
    saved = tmp_path / "a" / kinds(go(digits, tmp_path / "a"), Checkpoint)[-1].path
    state = checkpoint.load(saved) | {"versions": {"torch": "1.0"}}
    older = checkpoint.save(tmp_path, state.pop("step"), state).path
    logs = kinds(go(digits, tmp_path / "b", {"checkpoint": older}), Log)
    assert [log.code for log in logs] == ["resumed", "versions_differ"]


def test_a_resume_with_another_number_of_threads_says_so(digits, tmp_path):
    saved = tmp_path / "a" / kinds(go(digits, tmp_path / "a"), Checkpoint)[-1].path
    before = torch.get_num_threads()
    assert [log.code for log in kinds(go(digits, tmp_path / "b", {"checkpoint": saved}), Log)] == ["resumed"]
    try:
        torch.set_num_threads(before + 1)
        log = kinds(go(digits, tmp_path / "c", {"checkpoint": saved}), Log)[-1]
    finally:
        torch.set_num_threads(before)
    assert log.code == "versions_differ"
    assert (log.data["then"]["threads"], log.data["now"]["threads"]) == (str(before), str(before + 1))


def test_a_resume_on_another_gpu_or_number_of_devices_says_so(digits, tmp_path, monkeypatch):
    """Of a GPU only what is recorded can be shown without one."""
    saved = tmp_path / "a" / kinds(go(digits, tmp_path / "a"), Checkpoint)[-1].path
    assert checkpoint.load(saved)["versions"].keys() == {"twoviews", "python", "torch", "devices", "threads"}
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
        elsewhere.setattr(collectives, "world_size", lambda: 2)
        now = versions(torch.device("cuda"))
    assert now | {"gpu": "NVIDIA H100", "devices": "2"} == now
    assert now.keys() == {"twoviews", "python", "torch", "devices", "gpu", "cuda", "cudnn"}
    monkeypatch.setattr(Training, "versions", lambda training: now)
    log = kinds(go(digits, tmp_path / "b", {"checkpoint": saved}), Log)[-1]
    assert (log.code, log.data["now"]) == ("versions_differ", now)


def test_the_images_are_read_after_each_process_has_selected_its_gpu(digits, tmp_path, monkeypatch):
    happened, read = [], TrainingData.of

    @contextmanager
    def join(devices, device):
        happened.append("joined")
        yield

    monkeypatch.setattr(process_group, "process_group", join)
    monkeypatch.setattr(TrainingData, "of", lambda *arguments: happened.append("read") or read(*arguments))
    go(digits, tmp_path, epochs=1)
    assert happened == ["joined", "read"]


def test_kernels_are_deterministic_unless_the_config_says_otherwise(digits, tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        for number, (asked, exact) in enumerate((({}, True), ({"exact": False}, False), ({"exact": True}, True))):
            resolved = go(digits, tmp_path / str(number), epochs=1, **asked)[0].config
            assert (resolved["exact"], cudnn.deterministic, cudnn.benchmark) == (exact, exact, not exact)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@pytest.mark.parametrize("kind", ["knn_eval", "linear_eval"])
def test_a_model_can_be_judged(kind, digits, tmp_path):
    go(digits, tmp_path / "a")
    asked = config.parse({"k": 5} if kind == "knn_eval" else {"epochs": 5}, kind)
    inputs = Inputs(digits, model=tmp_path / "a" / "model")
    events = list(run(asked, inputs, tmp_path))
    assert isinstance(events[0], Resolved)
    assert isinstance(events[-1], Result)
    assert 0 <= events[-1].summary["top1"] <= 1


def test_a_run_in_chunks_learns_the_whole_batch_and_leaves_an_ordinary_model(digits, tmp_path):
    events = go(digits, tmp_path, chunk_size=5, evaluation={"every_epochs": 2})
    assert events[0].config["chunk_size"] == 5
    assert isinstance(events[-1], Result)
    assert saved_model.load(tmp_path / "model").encode(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)).isfinite().all()

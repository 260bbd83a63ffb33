"""kNN and linear evaluation runs, on a small packed dataset and an untrained encoder."""

import errno
import hashlib
import io
import json
import shutil
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from ssl_core import config
from ssl_core.checksums import document
from ssl_core.config import KnnEval, LinearEval, OnlineEvaluation, Pretrain, Views
from ssl_core.data.dataset import Dataset, select_labels
from ssl_core.data.decode import encode_png
from ssl_core.data.image_store import read_centre_crops
from ssl_core.data.items import Item
from ssl_core.data.label_split import LabelSplit, draw_labelled
from ssl_core.data.pack import pack
from ssl_core.device import Device
from ssl_core.errors import LabelsNeeded
from ssl_core.evaluation import (
    features,
    linear_augmented,
    linear_checkpoint,
    logistic_regression,
    online_probe,
)
from ssl_core.evaluation.features import extract_features
from ssl_core.evaluation.logistic_regression import ProbeTraining, Setting
from ssl_core.events import Artifact, Checkpoint, Failed, Log, Metrics, Progress, Resolved, Result, Stopped, to_line
from ssl_core.files import write_atomic
from ssl_core.inputs import Inputs
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.run import run
from ssl_core.serialization import checkpoint, checkpoint_files, saved_model
from ssl_core.training.resolve import resolve
from tests.ssl_core.toys import build_method

CLASSES = ("dark", "light", "red")
CPU = {"device": "cpu", "precision": "fp32"}


def make_image(seed: int, label: int) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 120, (12, 12, 3), dtype=np.uint8)
    if label:
        image[..., : 3 if label == 1 else 1] += 80
    return image


def packed(folder: Path, **counts: int) -> Path:
    items = [
        Item(f"{split}{n:03}.png", encode_png(make_image(n, n % 3)), CLASSES[n % 3], split)
        for split, count in counts.items()
        for n in range(count)
    ]
    pack(items, folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return packed(tmp_path_factory.mktemp("data") / "packed", train=90, test=60)


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory) -> Path:
    """An untrained encoder, whose features separate dark from light."""
    folder = tmp_path_factory.mktemp("model")
    asked = {"method": {"name": "simclr"}, "backbone": {"width": 0.125}, "epochs": 1, "batch_size": 32, **CPU}
    parsed = config.parse(asked)
    assert isinstance(parsed, Pretrain)
    report = Dataset.open(dataset).report
    resolved = resolve(parsed, report, Device.here("cpu"))
    assert isinstance(resolved.image_size, int)
    preprocessing = Preprocessing.of(resolved.image_size, report["mean"], report["std"])
    method = build_method(resolved, 0)
    encoder = Encoder(method.backbone, method.projector, preprocessing)
    saved_model.save(folder, encoder, resolved.backbone, method.heads(), {})
    return folder


def events_of(asked: dict, dataset: Path, model: Path, stop=lambda: False) -> list:
    parsed = config.parse({**CPU, **asked}, asked["kind"])
    return list(run(parsed, Inputs(dataset, model, stop=stop), model))


def test_knn_evaluates_model_and_baselines(dataset, model):
    events = events_of({"kind": "knn_eval", "k": 20, "baselines": ["pixels", "random"]}, dataset, model)
    assert isinstance(events[0], Resolved)
    summary = events[-1].summary
    assert [row["features"] for row in summary["results"]] == ["model", "pixels", "random"]
    assert summary["top1"] == summary["results"][0]["top1"] > 0.6
    assert summary["k"] == 20
    assert summary["test_images"] == 60
    assert "the test split (60 images)" in summary["protocol"]
    assert "a bootstrap over these images (1,000 resamples)" in summary["protocol"]
    names = [name for event in events if isinstance(event, Metrics) for name in event.values]
    assert names == ["knn/top1", "knn/top1_pixels", "knn/top1_random"]
    assert all(to_line(event) for event in events)


def test_linear_evaluates_every_fraction_of_the_labels(dataset, model):
    asked = {"kind": "linear_eval", "label_fractions": [1.0, 0.1], "draws": 3, "epochs": 20, "baselines": ["pixels"]}
    events = events_of(asked, dataset, model)
    summary = events[-1].summary
    rows = [(row["features"], row["label_fraction"], row["labels"], row["draws"]) for row in summary["results"]]
    assert rows == [("model", 0.1, 9, 3), ("model", 1.0, 90, 1), ("pixels", 0.1, 9, 3), ("pixels", 1.0, 90, 1)]
    assert summary["top1"] == summary["results"][1]["top1"] > 0.8
    assert summary["classes"] == 3
    assert "a bootstrap over these images and the draws of labels (1,000 resamples)" in summary["protocol"]
    assert all(row["learning_rate"] in LinearEval().learning_rates for row in summary["results"])
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].step == progress[-1].total_steps
    assert [event.step for event in progress] == list(range(1, len(progress) + 1))


def test_the_model_has_per_class_accuracy_and_a_confusion_matrix(dataset, model):
    for kind in ("knn_eval", "linear_eval"):
        events = events_of({"kind": kind, "baselines": ["pixels"]}, dataset, model)
        summary = events[-1].summary
        assert [(row["name"], row["images"]) for row in summary["per_class"]] == [(name, 20) for name in CLASSES]
        assert [sum(row) for row in summary["confusion"]] == [20] * 3
        correct = sum(summary["confusion"][c][c] for c in range(3)) / 60
        assert correct == pytest.approx(summary["top1"])
        for row in summary["results"]:
            low, high = row["top1_interval"]
            assert 0 <= low <= row["top1"] <= high <= 1
            assert "top5" not in row  # of three classes
        figure = next(event for event in events if isinstance(event, Artifact))
        data = (model / figure.path).read_bytes()
        assert (figure.name, figure.sha256) == ("confusion.png", hashlib.sha256(data).hexdigest())
        assert Image.open(io.BytesIO(data)).width > 300


def test_label_rows_select_the_labelled_images(dataset, model):
    opened = Dataset.open(dataset)
    train = opened.indices("train")
    rows = draw_labelled(opened.labels[train], 0.2, seed=0, draw=0)
    asked = {"kind": "linear_eval", "epochs": 5}
    by_fraction = events_of({**asked, "label_fractions": [0.2]}, dataset, model)[-1].summary
    by_rows = events_of({**asked, "label_rows": train[rows][::-1].tolist()}, dataset, model)[-1].summary
    assert by_rows == by_fraction


def test_label_rows_outside_the_training_images_fail(dataset, model):
    test_row = int(Dataset.open(dataset).indices("test")[0])
    for rows, words in (([0, test_row], f"holds {test_row}:"), ([0, 5000, 6000], "holds 5000 and 1 more:")):
        failed = events_of({"kind": "linear_eval", "label_rows": rows}, dataset, model)[-1]
        assert isinstance(failed, Failed)
        assert failed.code == "config_unfit"
        assert words in failed.message


def test_test_fraction_sets_how_much_is_held_out(tmp_path, model):
    bare = packed(tmp_path / "bare", train=60)
    for asked, images in (({}, 12), ({"test_fraction": 0.15}, 9)):
        summary = events_of({"kind": "knn_eval", "k": 5, **asked}, bare, model)[-1].summary
        assert summary["test_images"] == images
    assert "15 % of the train split, held out" in summary["protocol"]
    failed = events_of({"kind": "knn_eval", "test_fraction": 0.999}, bare, model)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "labels_needed"


SMALL_GRID = {"learning_rates": [1e-9, 1.0], "weight_decays": [0.0]}  # 1e-9 does not train


@pytest.mark.parametrize("val", [0, 15])  # selection by cross-validation, or on the val split
@pytest.mark.parametrize("asked", [{}, {"standardise": False}, {"label_fractions": [0.2, 1.0], "draws": 2}])
def test_identity_views_give_the_results_of_cached_features(val, asked, tmp_path, model, monkeypatch):
    monkeypatch.setattr(linear_augmented, "CROP_AND_FLIP", Views(crop_area=None, flip=0.0, jitter=0.0, grey=0.0))
    data = packed(tmp_path / "data", train=90, test=30, **({"val": val} if val else {}))
    asked = {"kind": "linear_eval", "epochs": 6, "batch_size": 32, **SMALL_GRID, **asked}
    cached = events_of(asked, data, model)[-1].summary
    augmented = events_of({**asked, "augment": True}, data, model)[-1].summary
    assert augmented["results"] == cached["results"]
    assert augmented["confusion"] == cached["confusion"]
    assert augmented["results"][-1]["learning_rate"] == 1.0


def test_augmented_images_train_classifiers_and_are_in_the_protocol(dataset, model):
    asked = {"kind": "linear_eval", "augment": True, "epochs": 8, "batch_size": 32, "baselines": ["pixels"]}
    events = events_of({**asked, "learning_rates": [3.0], "weight_decays": [0.0]}, dataset, model)
    summary = events[-1].summary
    assert summary["top1"] > 0.7
    assert "a new view in every epoch (crop of 8 % to 100 % of the area, flip)" in summary["protocol"]
    assert "60 un-augmented images" in summary["protocol"]
    assert "learning rate 3, weight decay 0" in summary["protocol"]
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].step == progress[-1].total_steps
    assert [event.step for event in progress] == list(range(1, len(progress) + 1))
    again = events_of({**asked, "learning_rates": [3.0], "weight_decays": [0.0]}, dataset, model)[-1].summary
    assert again == summary
    cached = events_of({**asked, "augment": False, "learning_rates": [3.0]}, dataset, model)[-1].summary
    assert "un-augmented images at 12 px" in cached["protocol"]


def test_an_augmented_evaluation_stops_between_batches(dataset, model):
    asked = {"kind": "linear_eval", "augment": True, "epochs": 1000, "batch_size": 8}
    calls = iter(range(10_000))
    events = events_of(asked, dataset, model, stop=lambda: next(calls) == 20)
    assert isinstance(events[-1], Stopped)


def test_without_standardisation_features_are_unscaled(dataset, model):
    asked = {"kind": "linear_eval", "standardise": False, "learning_rates": [0.1], "weight_decays": [0.0]}
    summary = events_of({**asked, "epochs": 20}, dataset, model)[-1].summary
    opened, encoder = Dataset.open(dataset), saved_model.load(model)
    train, test = opened.indices("train"), opened.indices("test")
    x, test_x = (extract_features(encoder, read_centre_crops(opened, rows, 12)) for rows in (train, test))
    classifiers = logistic_regression.fit(
        x, select_labels(opened, train), [Setting(0.1, 0.0)], ProbeTraining(3, epochs=20)
    )
    correct, _ = classifiers.score(test_x, select_labels(opened, test))
    assert summary["top1"] == pytest.approx(correct.item() / 60)
    assert "features as they are" in summary["protocol"]


def test_results_are_deterministic(dataset, model):
    asked = {"kind": "linear_eval", "label_fractions": [0.2, 1.0], "draws": 2, "epochs": 5, "batch_size": 16}
    first, second = (events_of(asked, dataset, model)[-1].summary for _ in range(2))
    assert first == second


def test_results_do_not_depend_on_the_order_of_the_fractions(dataset, model):
    asked = {"kind": "linear_eval", "draws": 2, "epochs": 5}
    first = events_of({**asked, "label_fractions": [0.1, 1.0]}, dataset, model)[-1].summary
    second = events_of({**asked, "label_fractions": [1.0, 0.1, 0.1]}, dataset, model)[-1].summary
    assert first == second


def test_a_stopped_evaluation_ends_in_stopped(dataset, model):
    for kind in ("knn_eval", "linear_eval"):
        events = events_of({"kind": kind}, dataset, model, stop=lambda: True)
        assert isinstance(events[-1], Stopped)
        assert not any(isinstance(event, Result) for event in events)


def test_the_layer_can_be_chosen(dataset, model):
    summary = events_of({"kind": "knn_eval", "layer": "block2", "k": 20}, dataset, model)[-1].summary
    assert summary["layer"] == "block2"
    assert "layer block2" in summary["protocol"]


def test_without_labels_or_model_the_evaluation_fails(tmp_path, dataset, model):
    items = [Item(f"{n}.png", encode_png(make_image(n, 0)), None, "train") for n in range(4)]
    pack(items, tmp_path / "bare")
    failed = events_of({"kind": "knn_eval"}, tmp_path / "bare", model)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "labels_needed"
    resolved = KnnEval(device="cpu", precision="fp32")
    assert list(run(resolved, Inputs(dataset), tmp_path))[-1].code == "config_unfit"


def test_classes_without_votes_are_not_in_the_top5(tmp_path, model):
    """With one neighbour one class has votes: top-5 is top-1."""
    items = [
        Item(f"{split}{n}.png", encode_png(make_image(n, n % 3)), f"c{n % 7}", split)
        for split in ("train", "test")
        for n in range(42)
    ]
    pack(items, tmp_path / "seven")
    row = events_of({"kind": "knn_eval", "k": 1}, tmp_path / "seven", model)[-1].summary["results"][0]
    assert row["top5"] == row["top1"]
    wide = events_of({"kind": "knn_eval", "k": 42}, tmp_path / "seven", model)[-1].summary["results"][0]
    assert wide["top5"] > wide["top1"]


def test_the_test_images_are_the_test_split_then_val_then_held_out(tmp_path):
    whole = LabelSplit.of(Dataset.open(packed(tmp_path / "a", train=30, val=12, test=9)), None, 0)
    assert [len(rows) for rows in (whole.train, whole.val, whole.test)] == [30, 12, 9]
    by_val = LabelSplit.of(Dataset.open(packed(tmp_path / "b", train=30, val=12)), None, 0)
    assert [len(rows) for rows in (by_val.train, by_val.val, by_val.test)] == [30, 0, 12]
    held_out = Dataset.open(packed(tmp_path / "c", train=30))
    split = LabelSplit.of(held_out, None, 0)
    assert [len(rows) for rows in (split.train, split.val, split.test)] == [24, 0, 6]
    assert not set(split.train) & set(split.test)
    assert Counter(held_out.labels[split.test].tolist()) == {0: 2, 1: 2, 2: 2}
    assert "20 % of the train split" in split.test_name


def test_one_class_cannot_be_evaluated(tmp_path):
    items = [Item(f"{n}.png", encode_png(make_image(n, 0)), "dark", "train") for n in range(4)]
    pack(items, tmp_path / "one")
    with pytest.raises(LabelsNeeded):
        LabelSplit.of(Dataset.open(tmp_path / "one"), None, 0)


def test_few_labels_are_drawn_evenly_and_differ_between_draws():
    labels = np.arange(1000) % 10
    draws = [draw_labelled(labels, 0.01, seed=0, draw=draw) for draw in range(10)]
    assert all(sorted(labels[draw]) == list(range(10)) for draw in draws)
    assert len({tuple(draw) for draw in draws}) == 10
    assert draw_labelled(labels, 1.0, 0, 0).tolist() == list(range(1000))
    assert len(draw_labelled(labels, 1e-6, 0, 0)) == 1


def test_the_online_probe_separates_good_features_from_noise():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 5
    noise = torch.randn(600, 16, generator=generator)
    good = torch.nn.functional.one_hot(labels, 16) * 3 + noise
    train, test = slice(0, 400), slice(400, 600)
    accuracies = online_probe.evaluate_features(
        good[train], labels[train], good[test], labels[test], 5, OnlineEvaluation(knn_k=20)
    )
    assert accuracies.keys() == {"online/knn", "online/linear"}
    assert min(accuracies.values()) > 0.8
    chance = online_probe.evaluate_features(
        noise[train], labels[train], noise[test], labels[test], 5, OnlineEvaluation(knn_k=20)
    )
    assert max(chance.values()) < 0.35


def test_features_do_not_depend_on_the_batch(dataset, model):
    encoder = saved_model.load(model)
    pixels = torch.from_numpy(np.stack([make_image(n, n % 3) for n in range(20)]))
    torch.testing.assert_close(extract_features(encoder, pixels, batch_size=7), extract_features(encoder, pixels))


def test_images_are_sent_to_the_device_as_bytes(dataset, model, monkeypatch):
    sent = []
    monkeypatch.setattr(features, "send", lambda pixels, device: sent.append((pixels.dtype, device)) or pixels)
    evaluation = features.Evaluation(KnnEval(**CPU), Inputs(dataset, model))
    source = evaluation.load_source("model")
    pixels = read_centre_crops(Dataset.open(dataset), evaluation.split.train, 12)
    found = source.extract(pixels)
    assert set(sent) == {(torch.uint8, torch.device("cpu"))}
    assert torch.equal(found, extract_features(saved_model.load(model), pixels))


@pytest.mark.parametrize("kind", ["knn_eval", "linear_eval"])
def test_the_features_of_a_source_are_freed_before_those_of_the_next(kind, dataset, model, monkeypatch):
    seen, extract = [], features.Evaluation.extract

    def watched(evaluation, source):
        assert all(reference() is None for reference in seen)
        found = yield from extract(evaluation, source)
        seen.append(weakref.ref(found))
        return found

    monkeypatch.setattr(features.Evaluation, "extract", watched)
    events = events_of({"kind": kind, "baselines": ["pixels", "random"]}, dataset, model)
    assert isinstance(events[-1], Result)
    assert len(seen) == 3


def returned_by(stream):
    """What a generator returns at its end."""
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


def test_the_features_of_all_images_lie_in_one_block_of_memory(tmp_path, model, monkeypatch):
    monkeypatch.setattr(features, "_CHUNK", 7)
    data = packed(tmp_path / "data", train=20, val=6, test=9)
    evaluation = features.Evaluation(KnnEval(**CPU), Inputs(data, model))
    parts = returned_by(evaluation.extract(evaluation.load_source("model")))
    assert [len(part) for part in (parts.train, parts.val, parts.test)] == [20, 6, 9]
    assert len({part.untyped_storage().data_ptr() for part in (parts.train, parts.val, parts.test)}) == 1
    encoder, opened = saved_model.load(model), Dataset.open(data)
    for part, split in ((parts.train, "train"), (parts.val, "val"), (parts.test, "test")):
        torch.testing.assert_close(
            part, extract_features(encoder, read_centre_crops(opened, opened.indices(split), 12))
        )


def resume(asked: dict, data: Path, model: Path, out: Path, saved: Path | None, until=None) -> list:
    """The events of a run that resumes from a checkpoint, up to its `until`th checkpoint."""
    parsed = config.parse({**CPU, **asked}, asked["kind"])
    out.mkdir(exist_ok=True)
    events = []
    for event in run(parsed, Inputs(data, model, saved), out):
        events.append(event)
        if until and sum(isinstance(event, Checkpoint) for event in events) == until:
            break
    return events


def checkpoints(events: list) -> list[Checkpoint]:
    return [event for event in events if isinstance(event, Checkpoint)]


LONG = {"kind": "linear_eval", "label_fractions": [0.2, 1.0], "draws": 2, "epochs": 3, "baselines": ["pixels"]}


@pytest.mark.parametrize("asked", [LONG | SMALL_GRID, LONG | SMALL_GRID | {"augment": True, "batch_size": 32}])
def test_a_killed_evaluation_resumes_and_gives_the_same_result(asked, dataset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_checkpoint, "_EVERY_SECONDS", 0.0)  # a checkpoint after every step
    whole = resume(asked, dataset, model, tmp_path / "whole", None)
    count = len(checkpoints(whole))
    assert count == (2 * (3 + 3 + 9) + 6 if asked.get("augment") else 6)  # 2 draws of 18 labels, 1 of 90; 6 fits
    assert len({event.step for event in checkpoints(whole)}) == count
    saved, total = None, 0
    for attempt, until in enumerate((1, count // 3, 1, 1, None)):
        out = tmp_path / str(attempt)
        events = resume(asked, dataset, model, out, saved, until)
        assert saved is None or [event.code for event in events if isinstance(event, Log)] == ["resumed"]
        total += len(checkpoints(events))
        saved = out / checkpoints(events)[-1].path
    assert total == count  # no step is repeated
    assert events[-1] == whole[-1]
    assert events[-2] == whole[-2]  # the confusion matrix
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert last.step == last.total_steps


def test_a_stopped_evaluation_writes_a_checkpoint(dataset, model, tmp_path):
    asked = LONG | {"augment": True, "batch_size": 32, "learning_rates": [1.0], "weight_decays": [0.0]}
    whole = events_of(asked, dataset, model)
    calls = iter(range(10_000))
    events = events_of(asked, dataset, model, stop=lambda: next(calls) == 12)
    saved, stopped = events[-2:]
    assert isinstance(stopped, Stopped)
    assert saved.step == stopped.step
    assert hashlib.sha256((model / saved.path).read_bytes()).hexdigest() == saved.sha256
    assert resume(asked, dataset, model, tmp_path / "out", model / saved.path)[-1] == whole[-1]


@pytest.mark.parametrize("fault", ["config", "images", "model", "damaged"])
def test_a_checkpoint_of_another_evaluation_is_ignored_with_a_warning(fault, dataset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_checkpoint, "_EVERY_SECONDS", 0.0)
    saved = tmp_path / "out" / checkpoints(resume(LONG, dataset, model, tmp_path / "out", None, until=2))[-1].path
    asked = LONG | ({"epochs": 4} if fault == "config" else {})
    data = packed(tmp_path / "data", train=89, test=60) if fault == "images" else dataset
    if fault == "model":
        model = shutil.copytree(model, tmp_path / "model")
        weights = safetensors.torch.load_file(model / saved_model.WEIGHTS)
        doubled = safetensors.torch.save({name: 2 * value for name, value in weights.items()})
        written = write_atomic(model / saved_model.WEIGHTS, doubled)
        card = saved_model.load_card(model)
        card["files"][saved_model.WEIGHTS] = {"sha256": written.sha256, "size_bytes": written.size_bytes}
        (model / saved_model.CARD).write_text(json.dumps(document.seal(card)))
    if fault == "damaged":
        saved.write_bytes(saved.read_bytes()[:-100])
    events = resume(asked, data, model, tmp_path / "again", saved)
    (log,) = (event for event in events if isinstance(event, Log))
    assert log.code == "checkpoint_unfit"
    assert "The evaluation starts anew." in log.message
    assert events[-1] == resume(asked, data, model, tmp_path / "fresh", None)[-1]


@pytest.mark.parametrize("of", ["model", "dataset"])
def test_a_flipped_byte_ends_an_evaluation(of, dataset, model, tmp_path):
    folder = shutil.copytree(model if of == "model" else dataset, tmp_path / "damaged")
    path = folder / (saved_model.WEIGHTS if of == "model" else "pixels.npy")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    failed = events_of(
        {"kind": "knn_eval"}, folder if of == "dataset" else dataset, folder if of == "model" else model
    )[-1]
    assert (failed.code, failed.retry, failed.data) == ("corrupt", False, {"file": path.name})


def test_an_evaluation_resumes_in_the_folder_of_another_one(dataset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_checkpoint, "_EVERY_SECONDS", 0.0)
    folder = tmp_path / linear_checkpoint.FOLDER
    resume(LONG, dataset, model, tmp_path, None)
    other = LONG | {"epochs": 4}
    assert checkpoints(resume(other, dataset, model, tmp_path, checkpoint_files.find_newest(folder), until=1))
    (log,) = (
        event
        for event in resume(other, dataset, model, tmp_path, checkpoint_files.find_newest(folder))
        if isinstance(event, Log)
    )
    assert log.code == "resumed"


def test_a_stop_during_feature_extraction_keeps_finished_results(dataset, model, tmp_path):
    calls, asked = iter(range(100)), {**LONG, "label_fractions": [1.0]}
    chunks = 2 + 1 + 1  # the model's features of train and test, its fit, and the first chunk of raw pixels
    inputs = Inputs(dataset, model, stop=lambda: next(calls) == chunks - 1)
    events = list(run(config.parse({**CPU, **asked}, "linear_eval"), inputs, tmp_path))
    assert [type(event) for event in events[-2:]] == [Checkpoint, Stopped]
    again = resume(asked, dataset, model, tmp_path / "again", tmp_path / events[-2].path)
    assert again[-1] == resume(asked, dataset, model, tmp_path / "whole", None)[-1]


def test_a_full_disk_does_not_end_an_evaluation(dataset, model, tmp_path, monkeypatch):
    def raise_disk_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(linear_checkpoint, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "write_stream", raise_disk_full)
    events = resume(LONG, dataset, model, tmp_path / "out", None)
    assert [event.code for event in events if isinstance(event, Log)] == ["storage_full"] * 6
    assert isinstance(events[-1], Result)

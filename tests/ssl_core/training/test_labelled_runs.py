"""Runs with labels on real digits: supervised, finetune and distill, from config to a model that classifies."""

from pathlib import Path

import pytest
import torch

from ssl_core import config
from ssl_core.data.dataset import Dataset, select_labels
from ssl_core.data.image_store import read_centre_crops
from ssl_core.evaluation.features import extract_features
from ssl_core.events import Artifact, Checkpoint, Failed, Metrics, Model, Resolved, Result, Stopped
from ssl_core.inputs import Inputs
from ssl_core.run import run
from ssl_core.serialization import saved_model
from tests.ssl_core.digits import pack_digits

SMALL = {
    "backbone": {"name": "resnet10", "width": 0.125, "stem": "cifar"},
    "image_size": 8,
    "batch_size": 16,
    "precision": "fp32",
    "pictures": False,
    "views": {"flip": 0.0, "crop_area": [0.5, 1.0]},
}
HEAD = {"name": "simclr", "projector": [24, 16, 12]}
KINDS = {"supervised": None, "finetune": "pretrained", "distill": "classifier"}
every_kind = pytest.mark.parametrize("kind", KINDS)


def go(kind, dataset, directory, model=None, checkpoint=None, stop=lambda: False, **fields):
    asked = config.parse({"epochs": 2, "evaluation": {"every_epochs": 1}, **SMALL, **fields}, kind)
    directory.mkdir(exist_ok=True)
    return list(run(asked, Inputs(dataset, model, checkpoint, stop), directory))


def made(events):
    return next(event for event in events if isinstance(event, Model))


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return pack_digits(tmp_path_factory.mktemp("digits"), train=96, test=60)


@pytest.fixture(scope="module")
def models(digits, tmp_path_factory) -> dict[str, Path]:
    """What the kinds start from: a pretrained encoder with a head of three layers, and one with a classifier."""
    folder = tmp_path_factory.mktemp("models")
    phases = [{"until": 1.0, "image_size": 8}]
    go("pretrain", digits, folder / "a", method=HEAD, phases=phases, evaluation={"every_epochs": 0})
    go("supervised", digits, folder / "b", epochs=6)
    return {"pretrained": folder / "a" / "model", "classifier": folder / "b" / "model"}


@every_kind
def test_a_run_tells_its_story_and_leaves_a_model_that_classifies(kind, digits, models, tmp_path):
    events = go(kind, digits, tmp_path, models.get(KINDS[kind]), pictures=True)
    assert isinstance(events[0], Resolved)
    assert {"views.png", "curves.png"} <= {event.name for event in events if isinstance(event, Artifact)}
    assert '"auto"' not in config.parse(events[0].config, kind).model_dump_json()
    online = [
        event.values["online/top1"] for event in events if isinstance(event, Metrics) and "online/top1" in event.values
    ]
    assert len(online) == 2
    assert isinstance(events[-1], Result)
    summary = events[-1].summary
    assert (summary["steps"], summary["collapsed"], summary["classes"]) == (12, False, 10)
    assert summary["top1_interval"][0] <= summary["top1"] <= summary["top1_interval"][1]
    assert "the test split (60 images)" in summary["protocol"]
    card = made(events).card
    assert (card["method"], card["classifier"]["classes"]) == (kind, [str(digit) for digit in range(10)])
    assert (card["layers"]["logits"], card["metrics"]["top1"]) == (10, summary["top1"])


@every_kind
def test_the_summary_is_what_the_loaded_model_gets_right(kind, digits, models, tmp_path):
    summary = go(kind, digits, tmp_path, models.get(KINDS[kind]))[-1].summary
    dataset, encoder = Dataset.open(digits), saved_model.load(tmp_path / "model")
    rows = dataset.indices("test")
    guesses = extract_features(encoder, read_centre_crops(dataset, rows, 8), "logits").argmax(1)
    assert summary["top1"] == (guesses == select_labels(dataset, rows)).double().mean().item()


@every_kind
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(kind, digits, models, tmp_path):
    fields = {"model": models.get(KINDS[kind])}
    if kind == "finetune":
        fields |= {"ft_proj_selector": 1, "fine_tune_after_block": 2}
    if kind == "distill":
        fields |= {"label_weight": 0.3, "label_fraction": 0.5}
    whole = go(kind, digits, tmp_path / "whole", **fields)
    calls = iter(range(100))
    first = go(kind, digits, tmp_path / "first", stop=lambda: next(calls) == 7, **fields)
    assert isinstance(first[-1], Stopped)
    saved = next(event for event in first if isinstance(event, Checkpoint))
    rest = go(kind, digits, tmp_path / "rest", checkpoint=tmp_path / "first" / saved.path, **fields)
    assert rest[-1].summary["top1"] == whole[-1].summary["top1"]
    for file in (saved_model.WEIGHTS, saved_model.HEADS):
        assert (tmp_path / "rest/model" / file).read_bytes() == (tmp_path / "whole/model" / file).read_bytes()


def test_supervised_learns_digits(digits, tmp_path):
    events = go("supervised", digits, tmp_path, epochs=12, evaluation={"every_epochs": 0})
    assert events[-1].summary["top1"] > 0.5  # guessing gives 0.1


def test_a_student_learns_what_its_teacher_knows_from_images_without_labels(digits, models, tmp_path):
    plain = pack_digits(tmp_path / "plain", train=96, test=60, labels=False)
    events = go("distill", plain, tmp_path / "out", models["classifier"], epochs=12)
    assert "top1" not in events[-1].summary
    dataset, rows = Dataset.open(plain), Dataset.open(plain).indices("test")
    images = read_centre_crops(dataset, rows, 8)
    teacher, student = (
        extract_features(saved_model.load(folder), images, "logits").argmax(1)
        for folder in (models["classifier"], tmp_path / "out" / "model")
    )
    assert (teacher == student).float().mean() > 0.5
    assert made(events).card["classifier"]["classes"] == [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("selector", "width", "layers"), [(0, 64, []), (1, 24, [24]), (2, 16, [24, 16]), (3, 12, [24, 16, 12])]
)
def test_the_classifier_stands_on_the_layer_that_is_asked_for_and_those_below_are_kept(
    selector, width, layers, digits, models, tmp_path
):
    go("finetune", digits, tmp_path, models["pretrained"], epochs=1, ft_proj_selector=selector)
    encoder = saved_model.load(tmp_path / "model")
    assert encoder.classifier.in_features == width
    assert (encoder.projector.widths if encoder.projector else []) == layers
    begun = saved_model.load(models["pretrained"])
    for name, value in encoder.projector.named_parameters() if encoder.projector else ():
        assert not torch.equal(value, begun.projector.get_parameter(name))  # it learns


def test_head_alone_leaves_the_backbone_as_it_was_to_the_byte(digits, models, tmp_path):
    go("finetune", digits, tmp_path, models["pretrained"], fine_tune_after_block=4, ft_proj_selector=1)
    after, before = (folder / saved_model.WEIGHTS for folder in (tmp_path / "model", models["pretrained"]))
    assert after.read_bytes() == before.read_bytes()


def test_a_step_that_changes_nothing_starts_from_the_models_own_network(digits, models, tmp_path):
    slow = {"optimizer": {"name": "sgd", "lr": 1e-12, "weight_decay": 0.0}, "epochs": 1, "ft_proj_selector": 3}
    go("finetune", digits, tmp_path, models["pretrained"], **slow)
    before, after = (saved_model.load(folder) for folder in (models["pretrained"], tmp_path / "model"))
    assert after.preprocessing == before.preprocessing
    for name, value in before.named_parameters():
        torch.testing.assert_close(after.get_parameter(name), value)
    assert after.classifier.weight.abs().max() < 1e-9  # it began at zero


def test_few_labels_make_smaller_batches(digits, models, tmp_path):
    events = go("finetune", digits, tmp_path, models["pretrained"], label_fraction=0.1)
    assert (events[-1].summary["labels"], events[-1].summary["steps"]) == (10, 2)


def test_minutes_become_epochs(digits, models, tmp_path):
    events = go("distill", digits, tmp_path, models["classifier"], epochs=None, minutes=0.01)
    assert events[0].config["epochs"] >= 1
    assert isinstance(events[-1], Result)


def test_a_classifiers_logits_are_a_layer_like_any_other(digits, models, tmp_path):
    asked = config.parse({"layer": "logits", "k": 5}, "knn_eval")
    summary = list(run(asked, Inputs(digits, models["classifier"]), tmp_path))[-1].summary
    assert (summary["layer"], summary["top1"] > 0.3) == ("logits", True)


@pytest.mark.parametrize(
    ("kind", "model", "fields", "words"),
    [
        ("finetune", "pretrained", {"ft_proj_selector": 4}, "has 3 layers"),
        ("finetune", "classifier", {"ft_proj_selector": 1}, "has 0 layers"),
        ("finetune", None, {}, "needs a model"),
        ("distill", "pretrained", {}, "no classifier"),
        ("distill", None, {}, "needs a model"),
        ("supervised", None, {"label_rows": [0, 10_000]}, "label_rows names 10000"),
    ],
)
def test_what_cannot_be_run_fails_in_a_sentence(kind, model, fields, words, digits, models, tmp_path):
    failed = go(kind, digits, tmp_path, models.get(model), **fields)[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retry) == ("config_unfit", False)
    assert words in failed.message


@pytest.mark.parametrize("kind", ["supervised", "finetune"])
def test_images_without_labels_are_not_enough(kind, models, tmp_path):
    plain = pack_digits(tmp_path / "plain", train=20, test=5, labels=False)
    failed = go(kind, plain, tmp_path / "out", models["pretrained"])[-1]
    assert (failed.code, failed.retry) == ("labels_needed", False)

"""Images of other channels than RGB: trained on by every method, evaluated, projected, exported and embedded."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import ssl_core.models.torchvision_ops  # noqa: F401 - has to come before torchvision, and so before timm

# isort: split
import timm
import torchvision

from ssl_core import config
from ssl_core.config.architectures import TORCHVISION, TORCHVISIONS_FIRST
from ssl_core.data.dataset import Dataset
from ssl_core.data.decode import decode, encode_array
from ssl_core.data.image_store import read_centre_crops
from ssl_core.events import Artifact, Checkpoint, Failed, Log, Metrics, Model, Resolved, Result, Stopped
from ssl_core.inputs import Inputs
from ssl_core.methods import METHODS
from ssl_core.models import backbones, other_libraries
from ssl_core.models.torchvision_models import TorchvisionModel
from ssl_core.reports import projection_map
from ssl_core.run import run
from ssl_core.serialization import saved_model
from tests.ssl_core.bands import SIDE, pack_bands, pack_deep_bands
from tests.ssl_core.digits import TINY, pack_digits

NETWORK = {"name": "resnet10", "width": 0.125, "stem": "cifar_stride2"}
SHORT = TINY | {"epochs": 1, "batch_size": 20, "phases": [{"until": 1.0, "image_size": SIDE}]}
LABELLED = {name: value for name, value in SHORT.items() if name not in ("views", "phases")}
ONLINE = {"evaluation": {"every_epochs": 1, "knn_k": 5}}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[int, Path]:
    """Datasets by their number of channels."""
    folder = tmp_path_factory.mktemp("bands")
    return {count: pack_bands(folder / str(count), count) for count in (1, 2, 5)} | {3: pack_digits(folder / "3")}


def go(dataset, directory, kind="pretrain", inputs=None, **fields):
    asked = {"method": {"name": "simclr"}, **SHORT, **ONLINE} if kind == "pretrain" else {}
    directory.mkdir(exist_ok=True)
    return list(run(config.parse(asked | fields, kind), Inputs(dataset, **(inputs or {})), directory))


def one(events, kind):
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


@pytest.fixture(scope="module")
def models(sets, tmp_path_factory) -> dict[int, Path]:
    """Pretrained models by their number of channels."""
    folder = tmp_path_factory.mktemp("models")
    for channels, dataset in sets.items():
        assert one(go(dataset, folder / str(channels)), Model)
    return {channels: folder / str(channels) / "model" for channels in sets}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_on_five_channels(name, sets, tmp_path):
    events = go(sets[5], tmp_path, method={"name": name})
    assert one(events, Resolved).config["backbone"]["channels"] == 5
    summary = one(events, Result).summary
    assert summary["steps"] == 2
    assert 0 <= summary["knn"] <= 1
    assert 0 <= summary["linear"] <= 1
    log = one(events, Log)
    assert (log.level, log.code) == ("info", "colour_left_out")
    assert log.data == {"options": ["saturation", "hue"], "channels": 5}
    dataset, encoder = Dataset.open(sets[5]), saved_model.load(tmp_path / "model")
    assert encoder.backbone.conv1.weight.shape[1] == encoder.channels == dataset.channels == 5
    assert encoder.preprocessing.mean == tuple(dataset.mean)
    features = encoder.encode(dataset.read_pixels(np.arange(7)))
    assert features.shape == (7, 64)
    assert features.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2])
def test_one_and_two_channels_are_trained_on_and_drawn(channels, sets, tmp_path, monkeypatch):
    events = go(sets[channels], tmp_path, pictures=True, normalisation="half")
    assert "views.png" in {event.name for event in events if isinstance(event, Artifact)}
    card = saved_model.load_card(tmp_path / "model")
    assert card["backbone"]["channels"] == channels
    assert card["preprocessing"]["mean"] == card["preprocessing"]["std"] == [0.5] * channels
    readme = (tmp_path / "model" / "README.md").read_text()
    assert f"| input | {channels} channel{'s' * (channels > 1)}, the largest central square" in readme
    (tmp_path / "cat.jpg").write_bytes(encode_array(Dataset.open(sets[channels]).read_image(0)))
    names: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0], names)
    assert names["features"].shape == (1, card["dim"])
    assert "ToTensor" not in readme


def test_rgb_and_views_without_colour_have_no_event(sets, tmp_path):
    plain = TINY["views"] | {"saturation": 0.0, "hue": 0.0}
    for name, dataset, views in (("rgb", sets[3], {}), ("bands", sets[5], plain)):
        assert not [event for event in go(dataset, tmp_path / name, views=views) if isinstance(event, Log)]


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_a_run_on_five_channels_that_was_stopped_goes_on_to_the_same_weights(optimizer, sets, tmp_path):
    fields = {"optimizer": {"name": optimizer}, "views": {"blur": 0.5, "noise": 0.05, "gamma": 0.2}, "epochs": 2}
    whole = one(go(sets[5], tmp_path / "whole", **fields), Model)
    calls = iter(range(100))
    first = go(sets[5], tmp_path / "first", inputs={"stop": lambda: next(calls) == 3}, **fields)
    assert one(first, Stopped).step == 3
    saved = tmp_path / "first" / one(first, Checkpoint).path
    rest = go(sets[5], tmp_path / "rest", inputs={"checkpoint": saved}, **fields)
    assert one(rest, Model).sha256 == whole.sha256
    assert not [event for event in rest if isinstance(event, Log) and event.code == "colour_left_out"]


def test_a_resolved_config_without_channels_is_of_rgb(sets, tmp_path):
    """As earlier versions wrote it."""
    events = go(sets[3], tmp_path / "a", checkpoints={"every_steps": 1, "keep": 9})
    first = next(event for event in events if isinstance(event, Checkpoint))
    state = torch.load(tmp_path / "a" / first.path, weights_only=True)
    del state["config"]["backbone"]["channels"]
    torch.save(state, tmp_path / "old.pt")
    rest = go(
        sets[3], tmp_path / "b", inputs={"checkpoint": tmp_path / "old.pt"}, checkpoints={"every_steps": 1, "keep": 9}
    )
    assert one(rest, Resolved).config["backbone"]["channels"] == 3
    assert one(rest, Model).sha256 == one(events, Model).sha256


@pytest.mark.parametrize("channels", [1, 5])
def test_models_of_other_channels_are_evaluated_with_baselines(channels, sets, models, tmp_path):
    inputs = {"model": models[channels]}
    for kind, fields in (("knn_eval", {"k": 5}), ("linear_eval", {"epochs": 3}), ("linear_eval", {"augment": True})):
        fields = {"epochs": 1, **fields} if kind == "linear_eval" else fields
        events = go(sets[channels], tmp_path, kind, inputs, baselines=["pixels", "random"], **fields)
        assert [row["features"] for row in one(events, Result).summary["results"]] == ["model", "pixels", "random"]
        assert len([event for event in events if isinstance(event, Metrics)]) == 3


def test_five_channels_are_learnt_by_labels_fine_tuned_and_distilled(sets, models, tmp_path):
    go(sets[5], tmp_path / "supervised", "supervised", **LABELLED)
    go(sets[5], tmp_path / "tuned", "finetune", {"model": models[5]}, **{**LABELLED, "backbone": {}})
    go(sets[5], tmp_path / "distilled", "distill", {"model": tmp_path / "supervised" / "model"}, **LABELLED)
    for name in ("supervised", "tuned", "distilled"):
        encoder = saved_model.load(tmp_path / name / "model")
        assert encoder.channels == encoder.backbone.conv1.in_channels == 5
    assert saved_model.load_card(tmp_path / "tuned" / "model")["preprocessing"]["mean"] == Dataset.open(sets[5]).mean


@pytest.mark.parametrize("channels", [2, 5])
def test_a_projection_shows_three_channels_or_the_first_as_grey(channels, sets, models, tmp_path, monkeypatch):
    shown = []
    draw = projection_map.draw_thumbnails
    monkeypatch.setattr(projection_map, "draw_thumbnails", lambda *given: shown.append(given[2]) or draw(*given))
    events = go(sets[channels], tmp_path, "project", {"model": models[channels]}, methods=["pca"], split="train")
    assert one(events, Result).summary["images"] == 40
    pixels = read_centre_crops(Dataset.open(sets[channels]), np.arange(40), projection_map.THUMBNAIL).numpy()
    assert np.array_equal(shown[0], pixels[..., :3] if channels == 5 else pixels[..., [0, 0, 0]])


@pytest.mark.parametrize(("channels", "bits"), [(5, 12), (1, 12), (3, 14)])
def test_deep_images_of_several_sizes_are_trained_judged_and_embedded(channels, bits, tmp_path):
    """The same image of 8 bits has nearly the embedding of the deep one."""
    dataset = Dataset.open(pack_deep_bands(tmp_path / "data", channels, bits))
    assert (dataset.pixels, dataset.channels, set(dataset.value_range.high)) == (None, channels, {2**bits - 1})
    short = {"batch_size": 12, "image_size": 32, "phases": [{"until": 1.0, "image_size": 32}], "epochs": 1}
    events = go(dataset.directory, tmp_path / "run", **short)
    assert any("online/knn" in event.values for event in events if isinstance(event, Metrics))
    model = tmp_path / "run" / "model"
    judged = go(dataset.directory, tmp_path / "judged", "knn_eval", {"model": model}, k=5)
    assert 0 <= one(judged, Result).summary["top1"] <= 1
    encoder = saved_model.load(model)
    preprocessing = encoder.preprocessing
    values = (dataset.read_image(0) * ((2**bits - 1) / 255)).astype(np.uint16)
    files = (encode_array(values), encode_array(dataset.read_image(0)))
    images = [decode(file, channels=channels, values=preprocessing.values) for file in files]
    vectors = encoder.encode(np.stack([encoder.prepare(image) for image in images]))
    assert torch.cosine_similarity(*vectors.chunk(2)).item() > 0.99


@pytest.mark.parametrize(("channels", "stem"), [(1, "cifar"), (5, "imagenet")])
def test_a_model_of_other_channels_is_exported_to_every_format(channels, stem, sets, tmp_path):
    network = {"name": "resnet10", "width": 1.0, "stem": stem}
    go(sets[channels], tmp_path, backbone=network, subset=20, evaluation={"every_epochs": 0})
    inputs = {"model": tmp_path / "model"}
    summary = one(go(sets[channels], tmp_path, "export", inputs, images=5), Result).summary
    assert [row["format"] for row in summary["results"]] == ["torchvision", "timm", "torch_export", "onnx"]
    assert ["torchvision" in summary["results"][0]["loaded_by"], "timm" in summary["results"][1]["loaded_by"]] == [
        True
    ] * 2
    assert (summary["channels"], summary["create_model"]["in_chans"]) == (channels, channels)
    shape = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()[0].shape
    assert shape == ["batch", SIDE, SIDE, channels]


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("name", ["resnet18", "torchvision_densenet121"])
def test_the_code_for_other_libraries_builds_networks_of_five_channels(name, stem, tmp_path):
    network = {"name": name, "stem": stem if name == "resnet18" else "imagenet", "width": 1, "channels": 5}
    scope = {"load_file": load_file, "torch": torch, "torchvision": torchvision, "timm": timm}
    for write in (other_libraries.write_torchvision_code, other_libraries.write_timm_code):
        lines = write(network, "weights.safetensors").splitlines()
        made = [line for line in lines if "import" not in line and "load_state_dict" not in line]
        exec("\n".join(made), scope)
        assert scope["network"](torch.rand(2, 5, 64, 64)).shape[0] == 2


@pytest.mark.parametrize("family", TORCHVISIONS_FIRST)
def test_torchvisions_models_keep_the_names_and_other_shapes_of_their_weights(family):
    name = next(name for name in TORCHVISION if name.startswith(family))
    with backbones.MetaTensors():
        rgb, bands = (TorchvisionModel(name, channels=channels).body.state_dict() for channels in (3, 5))
    assert rgb.keys() == bands.keys()
    (first,) = [key for key in rgb if rgb[key].shape != bands[key].shape]
    assert first == TORCHVISIONS_FIRST[family]
    assert bands[first].shape == (rgb[first].shape[0], 5, *rgb[first].shape[2:])


@pytest.mark.parametrize(
    ("kind", "model", "data", "fields", "words"),
    [
        ("pretrain", None, 5, {"backbone": {"channels": 3}}, "backbone.channels needs images of 3 channels; those of"),
        ("pretrain", None, 3, {"backbone": {"channels": 1}}, "needs images of 1 channel; those of the dataset have 3"),
        ("pretrain", None, 5, {"normalisation": "imagenet"}, "normalisation needs images of 3 channels"),
        ("pretrain", None, 5, {"backbone": {"weights": "imagenet"}}, "backbone.weights needs images of 3 channels"),
        ("pretrain", 3, 5, {}, "The model takes images of 3 channels; those of the dataset have 5"),
        ("finetune", 5, 3, {"epochs": 1}, "The model takes images of 5 channels; those of the dataset have 3"),
        ("distill", 3, 5, {"epochs": 1}, "The model takes images of 3 channels"),
        ("knn_eval", 1, 3, {}, "The model takes images of 1 channel; those of the dataset have 3"),
        ("linear_eval", 3, 1, {}, "The model takes images of 3 channels"),
        ("project", 3, 5, {}, "The model takes images of 3 channels"),
        ("embed_dataset", 3, 5, {}, "The model takes images of 3 channels"),
        ("export", 3, 5, {}, "The model takes images of 3 channels"),
    ],
)
def test_other_channels_than_those_of_the_dataset_are_refused(kind, model, data, fields, words, sets, models, tmp_path):
    inputs = {"model": models[model]} if model else {}
    failed = go(sets[data], tmp_path, kind, inputs, **fields)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "config_unfit"
    assert words in failed.message


def test_imagenet_weights_of_other_channels_are_refused_by_the_config():
    backbone = {"name": "resnet18", "channels": 5, "weights": "imagenet"}
    with pytest.raises(ValueError, match="of RGB images, not of 5 channels"):
        config.parse({"method": {"name": "simclr"}, "backbone": backbone})


def test_a_card_without_channels_is_of_as_many_as_it_has_means(models):
    card = saved_model.load_card(models[5])
    del card["backbone"]["channels"], card["checksum"]
    before = (models[5] / "model.json").read_text()
    try:
        (models[5] / "model.json").write_text(json.dumps(card))
        assert saved_model.load(models[5]).backbone.conv1.in_channels == 5
    finally:
        (models[5] / "model.json").write_text(before)

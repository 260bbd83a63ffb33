"""Exports: every file, loaded with the library of its format, has the model's features on real images."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ssl_core.models.torchvision_ops  # noqa: F401 - has to come before torchvision, and so before timm

# isort: split
import timm
import torchvision

from ssl_core import config
from ssl_core.config.architectures import RESNETS
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_store import read_centre_crops
from ssl_core.device import Device
from ssl_core.errors import ExportFailed
from ssl_core.events import Artifact, Failed, Log, Resolved, Stopped, from_line
from ssl_core.export import formats, graph
from ssl_core.inputs import Inputs
from ssl_core.models import other_libraries
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.run import run
from ssl_core.serialization import saved_model
from ssl_core.training.resolve import resolve
from tests.ssl_core.digits import pack_digits
from tests.ssl_core.toys import build_method

SMALL = {"name": "resnet10", "width": 0.125, "stem": "cifar"}
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return pack_digits(tmp_path_factory.mktemp("digits"), labels=False)


def saved(folder: Path, side: int = 16, **backbone) -> Encoder:
    """Save a model with non-initial batch norm statistics, and return its encoder."""
    asked = config.parse({"method": {"name": "simclr"}, "backbone": backbone, "batch_size": 2, "image_size": side})
    report = {"splits": {"train": {"images": 64}}, "sizes": [{"width": side, "height": side, "images": 64}]}
    resolved = resolve(asked, report, Device("cpu", gains_from_bf16=False))
    network = build_method(resolved, 1)
    generator = torch.Generator().manual_seed(2)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1, generator=generator)
        if name.endswith("running_var"):
            buffer.uniform_(0.8, 1.5, generator=generator)
    encoder = Encoder(network.backbone, network.projector, Preprocessing.of(side, [0.3, 0.4, 0.5], [0.2, 0.3, 0.4]))
    saved_model.save(folder, encoder, resolved.backbone, network.heads(), {"config": resolved.model_dump(mode="json")})
    return encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    saved(folder, **SMALL)
    return folder


def go(digits, model, out, stop=lambda: False, **fields) -> list:
    out.mkdir(exist_ok=True)
    return list(run(config.parse(fields, "export"), Inputs(digits, model, stop=stop), out))


@pytest.fixture(scope="module")
def small(digits, model, tmp_path_factory) -> tuple[Path, list]:
    """All formats of the small model, exported by the command: the folder and the run's events."""
    out = tmp_path_factory.mktemp("out")
    done = python("-m", "ssl_core", *write_request(digits, model, out))
    assert done.returncode == 0, done.stderr
    return out, [from_line(line) for line in done.stdout.splitlines()]  # stdout has events only


def pixels(digits: Path, count: int, side: int = 16) -> torch.Tensor:
    dataset = Dataset.open(digits)
    return read_centre_crops(dataset, dataset.indices("test")[:count], side)


def test_every_format_is_written_checked_and_reported(small):
    out, events = small
    assert isinstance(events[0], Resolved)
    files = [event for event in events if isinstance(event, Artifact)]
    assert [file.name for file in files] == ["torchvision.safetensors", "model.pt2", "model.onnx"]
    assert all((out / file.path).stat().st_size == file.size_bytes for file in files)
    summary = events[-1].summary
    assert [row["file"] for row in summary["results"]] == [file.name for file in files]
    assert all(0 <= row["relative_difference"] < 1e-5 for row in summary["results"])
    assert summary["images"] == 32
    assert [event.code for event in events if isinstance(event, Log)] == ["format_left_out"]


def test_the_onnx_file_takes_any_number_of_uint8_images(small, digits, model):
    session = onnxruntime.InferenceSession(small[0] / "model.onnx")
    (images,), (features,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 16, 16, 3])
    assert (features.name, features.shape) == ("features", ["batch", 64])
    encoder = saved_model.load(model)
    for count in (1, 5, 40):
        some = pixels(digits, count)
        (found,) = session.run(None, {"images": some.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), encoder.encode(some), rtol=1e-4, atol=1e-5)


def test_the_exported_program_takes_any_number_of_images_and_has_no_head(small, digits, model):
    program = torch.export.load(small[0] / "model.pt2")
    some = pixels(digits, 7)
    torch.testing.assert_close(program.module()(some), saved_model.load(model).encode(some), rtol=1e-4, atol=1e-5)
    assert not [name for name in program.state_dict if "projector" in name]


def test_the_files_contain_no_paths_of_this_machine(small):
    for name in ("model.pt2", "model.onnx"):
        data = (small[0] / name).read_bytes()
        assert str(ROOT).encode() not in data
        assert b"site-packages" not in data


def test_the_layer_can_be_the_projection(digits, model, tmp_path):
    events = go(digits, model, tmp_path, layer="projection", formats=["torch_export"], images=3)
    assert events[-1].summary["layer"] == "projection"
    some = pixels(digits, 4)
    found = torch.export.load(tmp_path / "model.pt2").module()(some)
    torch.testing.assert_close(found, saved_model.load(model).encode(some, "projection"), rtol=1e-4, atol=1e-5)


def test_selective_kernels_export_to_onnx_at_odd_image_sizes(digits, tmp_path, monkeypatch):
    # Each stage begins with a block that changes the shape; the second block of the first one does not.
    shorter = replace(RESNETS["resnet50"], depths=(2, 1, 1, 1))
    monkeypatch.setitem(RESNETS, "resnet50", shorter)
    saved(tmp_path / "model", 17, name="resnet50", width=0.0625, stem="cifar", selective_kernel=True)
    events = go(digits, tmp_path / "model", tmp_path / "out", formats=["torchvision", "onnx"], images=5)
    assert max(row["relative_difference"] for row in events[-1].summary["results"]) < 1e-5


NETWORKS = {
    "ours at width 1": {"name": "resnet18", "width": 1.0, "stem": "imagenet"},
    "with a stem for small images": {"name": "resnet18", "width": 1.0, "stem": "cifar"},
    "with a stem of stride 2": {"name": "resnet18", "width": 1.0, "stem": "cifar_stride2"},
    "with solo-learn's stem": {"name": "resnet18", "width": 1.0, "stem": "cifar_padding2"},
    "of a depth that neither has by name": {"name": "resnet10", "width": 1.0, "stem": "imagenet"},
    "torchvision's own": {"name": "torchvision_densenet121"},
}


@pytest.mark.parametrize("network", NETWORKS)
def test_torchvision_and_timm_load_the_backbone_into_networks_of_their_own(network, digits, tmp_path):
    encoder = saved(tmp_path / "model", 32, **NETWORKS[network])
    events = go(digits, tmp_path / "model", tmp_path / "out", formats=["torchvision", "timm"], images=6)
    rows = {row["format"]: row for row in events[-1].summary["results"]}
    assert [row["loaded_by"].split()[0] for row in rows.values()] == ["torchvision", "timm"]
    assert max(row["relative_difference"] for row in rows.values()) < 1e-5
    some = pixels(digits, 4, 32)
    images = encoder.preprocessing.normalise_(some.permute(0, 3, 1, 2) / 255)
    for library, lines in events[-1].summary["load"].items():
        features = loaded(lines, tmp_path / "out")(images).flatten(1)
        if library == "timm" or not network.startswith("torchvision"):  # whose classifier is still there
            torch.testing.assert_close(features, encoder.encode(some), rtol=1e-4, atol=1e-4)


def loaded(lines: str, folder: Path) -> nn.Module:
    """The network of the code in the result and the model card, run in that folder."""
    names: dict = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            exec(lines, names)
    finally:
        os.chdir(before)
    return names["network"].requires_grad_(False)


def test_a_network_that_torchvision_lacks_keeps_the_names(small, model):
    exported = load_file(small[0] / "torchvision.safetensors")
    assert exported.keys() == {name for name in torchvision.models.resnet18().state_dict() if name in exported}
    assert exported.keys() == load_file(model / saved_model.WEIGHTS).keys()


@pytest.mark.parametrize("name", ["resnet50", "densenet161", "resnext50_32x4d", "inception_v3", "wide_resnet50_2"])
def test_timm_has_the_same_names_and_shapes(name):
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0).state_dict()
        ours = torchvision.models.get_model(name, weights=None, **arguments(name)).state_dict()
    assert name in other_libraries.SAME_IN_TIMM
    assert theirs.items() <= {key: theirs.get(key) for key in ours}.items()
    assert {key: value.shape for key, value in theirs.items()} == {
        key: value.shape for key, value in ours.items() if not key.startswith(("fc.", "classifier."))
    }


def arguments(name):
    return {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}


REFUSED = {
    "a layer that is not there": ({"layer": "head7"}, "config_unfit", "head7"),
    "timm without such a network": ({"formats": ["timm"]}, "config_unfit", "timm"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_export_that_the_model_does_not_support_fails_before_writing(case, digits, model, tmp_path):
    fields, code, hint = REFUSED[case]
    last = go(digits, model, tmp_path, **fields)[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.retry) == (code, False)
    assert hint in last.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [saved_model.WEIGHTS, saved_model.HEADS, saved_model.CARD])
def test_a_damaged_model_fails(digits, model, tmp_path, name):
    path = shutil.copytree(model, tmp_path / "model") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    last = go(digits, tmp_path / "model", tmp_path / "out")[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.retry, last.data) == ("corrupt", False, {"file": name})


def test_a_file_with_other_features_fails_the_run_and_is_deleted(digits, model, tmp_path, monkeypatch):
    def write_another(model):
        saved(tmp_path / "other", **SMALL, zero_init_residual=True)
        return (tmp_path / "other" / saved_model.WEIGHTS).read_bytes()

    monkeypatch.setitem(formats.FORMATS, "torchvision", replace(formats.FORMATS["torchvision"], write=write_another))
    last = go(digits, model, tmp_path, formats=["torchvision"])[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.retry) == ("export_failed", False)
    assert last.message.startswith("torchvision.safetensors, loaded by Twoviews")
    assert not (tmp_path / "torchvision.safetensors").exists()


def test_a_network_that_the_exporter_does_not_support_fails():
    class Undecided(nn.Module):
        dim, block_dims = 3, {}

        def forward(self, images):
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    encoder = Encoder(Undecided(), None, Preprocessing.of(8, [0.5] * 3, [0.5] * 3))
    with pytest.raises(ExportFailed, match=r"torch\.export cannot export this network"):
        graph.trace(encoder, "backbone")


def test_a_run_stops_between_formats(digits, model, tmp_path):
    calls = iter([False, True])
    last = go(digits, model, tmp_path, lambda: next(calls), formats=["torchvision", "onnx"])[-1]
    assert last == Stopped(1)
    assert not (tmp_path / "model.onnx").exists()


def test_an_export_needs_a_model(digits, tmp_path):
    last = go(digits, None, tmp_path)[-1]
    assert (type(last), last.code) == (Failed, "config_unfit")


WITHOUT = """
import importlib.abc, json, sys
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name=name)
sys.meta_path.insert(0, Wall())
from ssl_core.__main__ import main
print([main(words) for words in json.loads(sys.argv[1])])
"""


def write_request(digits, model, out, **fields):
    """Write the config of an export, and return the words of its command."""
    out.mkdir(exist_ok=True)
    (out / "config.json").write_text(json.dumps({"kind": "export", **fields}))
    places = ["--data", str(digits), "--model", str(model), "--out", str(out)]
    return ["run", str(out / "config.json"), *places, "--events"]


def python(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=250)


def test_a_missing_package_fails_its_format_only_and_names_the_extra(digits, model, tmp_path):
    every = write_request(digits, model, tmp_path / "every")
    one = write_request(digits, model, tmp_path / "one", formats=["torchvision"])
    done = python("-c", WITHOUT, json.dumps([every, one]))
    assert done.returncode == 0, done.stderr
    *lines, statuses = done.stdout.splitlines()
    assert json.loads(statuses) == [1, 0]
    (failed,) = [event for event in map(from_line, lines) if isinstance(event, Failed)]
    assert failed.code == "package_missing"
    assert "onnxruntime" in failed.message
    assert "twoviews[export]" in failed.message

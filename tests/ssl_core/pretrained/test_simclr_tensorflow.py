"""Import of google-research/simclr's checkpoints: equality with their network block by block, and errors."""

import hashlib
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from ssl_core import config
from ssl_core.__main__ import main
from ssl_core.device import Device
from ssl_core.errors import BadWeights, PackageMissing
from ssl_core.models.encoder import Preprocessing
from ssl_core.models.resnet import BLOCKS
from ssl_core.pretrained import simclr_tensorflow
from ssl_core.serialization import saved_model
from ssl_core.training.resolve import resolve
from tests.ssl_core.google_network import GoogleNetwork
from tests.ssl_core.toys import build_method

SIDE = 16


def images(side):
    return np.random.default_rng(side).uniform(size=(2, side, side, 3))


def build_theirs(**fields):
    """A small network of theirs that has all of its variables."""
    network = GoogleNetwork(**{"depth": 18, "planes": 8, "cifar": True, "head": (64, 64, 16)} | fields)
    network.run(images(SIDE))
    return network


def packed(folder, variables):
    path = folder / "checkpoint.npz"
    np.savez(path, **variables)
    return path


def outputs(encoder, images):
    """The outputs of `GoogleNetwork.run`, by our encoder in float64."""
    network, projector = encoder.backbone, encoder.projector
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    found = {"stem": x}
    for name, stage in zip(BLOCKS, (network.layer1, network.layer2, network.layer3, network.layer4), strict=True):
        x = found[name] = stage(x)
    x = found["features"] = network(images)
    for layer, following in pairwise([*projector, None]):
        x = layer(x)
        if isinstance(following, torch.nn.Linear | None):
            found[f"head{len(found) - 6}"] = x
    return found


@pytest.mark.parametrize(
    ("network", "side"),
    [
        ({"depth": 50, "planes": 16, "cifar": False}, 33),
        ({"depth": 50, "planes": 16, "cifar": False}, 40),
        ({"depth": 50, "planes": 16, "cifar": False, "selective": True}, 33),
        ({"depth": 50, "planes": 16, "cifar": False, "selective": True}, 40),
        ({"depth": 50, "planes": 8, "selective": True}, 11),
        ({"depth": 18, "planes": 8, "cifar": False}, 38),
        ({"depth": 18, "planes": 8}, 11),
    ],
    ids=str,
)
def test_an_imported_network_equals_theirs_block_by_block(network, side, tmp_path):
    theirs = build_theirs(**network)
    report = simclr_tensorflow.import_simclr(packed(tmp_path, theirs.variables), tmp_path / "model")
    assert report.matched == len(theirs.variables)
    assert report.left_out == []
    expected = theirs.run(images(side))
    encoder = saved_model.load(tmp_path / "model").double()
    with torch.inference_mode():
        found = outputs(encoder, torch.from_numpy(images(side)).permute(0, 3, 1, 2))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        value = value.permute(0, 2, 3, 1) if value.ndim == 4 else value
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("network", "name", "variables"),
    [
        ({}, "resnet18", 119),
        ({"depth": 50, "cifar": False}, "resnet50", 279),
        ({"depth": 50, "cifar": False, "selective": True}, "resnet50", 385),
        ({"depth": 101, "cifar": False}, "resnet101", 534),
    ],
    ids=str,
)
def test_the_network_is_identified_by_its_variables(network, name, variables, tmp_path):
    theirs = build_theirs(planes=4, **network)
    report = simclr_tensorflow.import_simclr(packed(tmp_path, theirs.variables), tmp_path / "model")
    assert (report.backbone.name, report.backbone.width, report.matched) == (name, 4 / 64, variables)
    assert report.backbone.selective_kernel == theirs.selective
    assert report.backbone.stem == ("cifar" if theirs.cifar else "imagenet")
    assert report.backbone.layout == "google"
    assert report.head == theirs.head


class Listed(GoogleNetwork):
    """Records the shape of every variable, without values."""

    def variable(self, name, shape):
        self.variables[name] = list(shape)
        return np.zeros(shape)


SK = {"selective": True}
# SHA-256 of the lines `name [shape]` of all variables, sorted by name, of networks built by google-research/simclr's
# own TF1 code, not of the transcription.
THEIRS = [
    ((18, 64, (512, 512, 128)), {"cifar": True}, "ed9b4ace02b3d605454884898efc01516cfe22de36fda221c92fdc001bd49971"),
    ((50, 64, (2048, 2048, 128)), {}, "d89c25039b8520cf47eb8ab07c342b94dd779aa39439fed51bc735bcdd91b9e2"),
    ((50, 64, (2048, 2048, 128)), SK, "ce67665035fd133cdc31090479cda940ff9db1ec3dda6ba8a93a449e32b2702d"),
    ((50, 128, (4096, 4096, 128)), SK, "bba858b88351fee0f399f3fbc45fa42c161d91f764f945055d2125c2a41e73ef"),
    ((101, 64, (2048, 2048, 128)), {}, "884b7c1c3dd9163ed41a8d786ce2ab6673a2de1fed8a013ecfeea4d92b5273b8"),
]


@pytest.mark.parametrize(("size", "more", "digest"), THEIRS, ids=str)
def test_the_transcription_has_the_names_and_shapes_of_their_variables(size, more, digest):
    depth, planes, head = size
    network = Listed(depth, planes, head=head, **more)
    network.run(images(4))
    lines = [f"{name} {shape}" for name, shape in sorted(network.variables.items())]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest


@pytest.mark.parametrize(("cifar", "size"), [(False, 224), (True, 32)])
def test_an_imported_model_does_not_normalise_its_images(cifar, size, tmp_path):
    simclr_tensorflow.import_simclr(packed(tmp_path, build_theirs(cifar=cifar).variables), tmp_path / "model")
    encoder = saved_model.load(tmp_path / "model")
    assert encoder.preprocessing == Preprocessing(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels = np.full((1, size, size, 3), 51, dtype=np.uint8)
    with torch.inference_mode():
        expected = encoder.backbone(torch.full((1, 3, size, size), 0.2))
    torch.testing.assert_close(encoder.encode(pixels), expected)


def test_training_starts_from_an_imported_model(tmp_path):
    variables = build_theirs(depth=50, cifar=False, selective=True).variables
    simclr_tensorflow.import_simclr(packed(tmp_path, variables), tmp_path / "model")
    card = saved_model.load_card(tmp_path / "model")
    asked = config.parse({"method": {"name": "simclr"}, "batch_size": 16, "image_size": 32})
    report = {"splits": {"train": {"images": 64}}, "sizes": [{"width": 32, "height": 32, "images": 64}]}
    resolved = resolve(asked, report, Device("cpu", gains_from_bf16=False), start=card)
    network = build_method(resolved, seed=1).backbone
    saved_model.load_backbone(network, tmp_path / "model")
    torch.testing.assert_close(network.body.state_dict(), saved_model.load(tmp_path / "model").backbone.state_dict())


def test_a_checkpoint_without_a_head_becomes_a_model_without_a_projection(tmp_path):
    theirs = build_theirs(head=())
    report = simclr_tensorflow.import_simclr(packed(tmp_path, theirs.variables), tmp_path / "model")
    assert report.head == ()
    assert "none" in report.to_text()
    card = saved_model.load_card(tmp_path / "model")
    assert card["layers"] == {"backbone": 64, "block1": 8, "block2": 16, "block3": 32, "block4": 64}
    assert card["projection_dim"] is None
    assert card["projector"] is None
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        saved_model.load(tmp_path / "model").encode(pixels), theirs.run(pixels / 255)["features"], rtol=1e-4, atol=1e-5
    )


def test_variables_outside_the_encoder_are_reported(tmp_path):
    more = {"head_supervised/linear_layer/dense/kernel": np.zeros((64, 10), np.float32), "global_step": np.array(7)}
    report = simclr_tensorflow.import_simclr(packed(tmp_path, build_theirs().variables | more), tmp_path / "model")
    assert report.left_out == ["global_step", "head_supervised/linear_layer/dense/kernel"]
    assert "left out: 2 variables (global_step, head_supervised/linear_layer/dense/kernel)" in report.to_text()


def without(name):
    return lambda variables: variables.pop(name)


def changed(name, change):
    return lambda variables: variables.update({name: change(variables[name])})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("base_model/conv2d_3/kernel"), "lacks the variable base_model/conv2d_3/kernel"),
        (without("base_model/batch_normalization_20/gamma"), "lacks .*batch_normalization_20/gamma"),
        (without("base_model/conv2d_20/kernel"), "has 20 convolutions"),
        (without("head_contrastive/nl_1/batch_normalization/beta"), "lacks .*nl_1/batch_normalization/beta"),
        (lambda variables: variables.clear(), "has 0 convolutions"),
        (changed("base_model/conv2d_3/kernel", lambda x: x[..., :5]), r"conv2d_3/kernel.*8, 5\].*8, 8\] is needed"),
        (changed("base_model/conv2d/kernel", np.ravel), r"conv2d/kernel has the shape \[216\].*4 dimensions"),
        (changed("base_model/conv2d/kernel", lambda x: np.tile(x, 100)), "no supported network.*8"),
        (changed("head_contrastive/nl_0/dense/kernel", lambda x: x[:5]), r"nl_0/dense/kernel.*\[5, 64\].*\[64, 64\]"),
        (changed("base_model/conv2d_3/kernel", lambda x: x * np.nan), "conv2d_3/kernel.*finite"),
        (changed("base_model/conv2d_3/kernel", lambda x: x.astype(str)), "conv2d_3/kernel.*finite"),
    ],
)
def test_variables_of_no_supported_network_are_refused(damage, words, tmp_path):
    variables = build_theirs().variables
    damage(variables)
    with pytest.raises(BadWeights, match=words):
        simclr_tensorflow.import_simclr(packed(tmp_path, variables), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"a text\n" * 100, None],
    ids=["cut", "empty", "text", "missing"],
)
def test_a_file_that_is_not_an_npz_is_refused(damage, tmp_path):
    path = packed(tmp_path, build_theirs().variables)
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(BadWeights, match=r"checkpoint\.npz cannot be read"):
        simclr_tensorflow.import_simclr(path, tmp_path / "model")


def test_a_corrupted_npz_is_refused(tmp_path):
    path = packed(tmp_path, build_theirs().variables)
    data = bytearray(path.read_bytes())
    data[data.index(b"conv2d_3/kernel") + 200] ^= 255
    path.write_bytes(data)
    with pytest.raises(BadWeights, match=r"damaged at base_model/conv2d_3/kernel"):
        simclr_tensorflow.import_simclr(path, tmp_path / "model")


def test_a_tensorflow_checkpoint_needs_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(PackageMissing, match=r"pip install 'twoviews\[tensorflow\]'.*\.npz"):
        simclr_tensorflow.read(tmp_path / "model.ckpt-250228")


def test_the_command_imports_and_reports(capsys, tmp_path):
    path = packed(tmp_path, build_theirs().variables)
    assert main(["import-simclr", str(path), "--out", str(tmp_path / "model")]) == 0
    output = capsys.readouterr().out
    assert "network: resnet18, width 0.125, cifar stem\nhead: 64, 64, 16\nread: 119 variables" in output
    assert saved_model.load(tmp_path / "model").dim == 64


def test_the_command_reports_errors_on_stderr(capsys, tmp_path):
    assert main(["import-simclr", str(tmp_path / "none.npz"), "--out", str(tmp_path / "model")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{tmp_path / 'none.npz'} cannot be read")
    assert captured.out == ""

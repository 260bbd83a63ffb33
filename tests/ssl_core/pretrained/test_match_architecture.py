"""Matching of state dicts: the matched network has the outputs of its source.

State dicts come from torchvision, timm and lightly themselves. solo-learn's, MoCo's and SimSiam's are built as in
their code: a torchvision ResNet as `backbone`, `encoder_q` or `encoder` of a module, with heads beside or in it.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

import ssl_core.models.torchvision_ops  # noqa: F401 - has to come before torchvision

# isort: split
import torchvision.models

from ssl_core.config.architectures import TORCHVISION, TORCHVISIONS_FIRST
from ssl_core.errors import BadWeights
from ssl_core.models import backbones, torchvision_models
from ssl_core.models.resnet import ResNet
from ssl_core.pretrained.match_architecture import match_architecture
from tests.ssl_core.library_networks import lightly_resnet, lightly_sequential, randomise, timm_resnet


def resnet(name="resnet18", stem="imagenet", padding=1):
    """A torchvision ResNet without its classifier."""
    network = torchvision.models.get_model(name, weights=None)
    network.fc = nn.Identity()
    if stem == "cifar":
        network.conv1 = nn.Conv2d(3, 64, 3, padding=padding, bias=False)
        network.maxpool = nn.Identity()
    return randomise(network)


def pictures(side):
    """Two photographs, N×3×S×S."""
    found = [Image.fromarray(load_sample_image(name)).resize((side, side)) for name in ("china.jpg", "flower.jpg")]
    return torch.tensor(np.stack([np.asarray(image) for image in found])).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def match(weights, **known):
    return match_architecture({name: tuple(value.shape) for name, value in weights.items()}, **known)


def rebuilt(weights, found):
    """Our network with those weights."""
    network = backbones.build(found.backbone).eval()
    own = network.body.state_dict()
    own.update({name: weights[theirs] for name, theirs in found.names.items()})
    network.body.load_state_dict(own)
    return network


def prefixed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


def head(prefix):
    return {f"{prefix}.0.weight": torch.ones(8, 512), f"{prefix}.0.bias": torch.ones(8)}


# name: the source, its saved state dict, and the expected (backbone, stem, layout, prefix)
def sources():
    plain, narrow, padded = resnet(), resnet(stem="cifar"), resnet(stem="cifar", padding=2)
    ours, copy = plain.state_dict(), resnet().state_dict()
    wide = resnet("wide_resnet50_2")
    numbered = nn.Sequential(*list(plain.children())[:-1], nn.Flatten())
    return {
        "torchvision": (plain, ours | {"fc.weight": torch.ones(9, 512)}, ("resnet18", "imagenet", "torchvision", "")),
        "torchvision, wide": (wide, wide.state_dict(), ("wide_resnet50_2", "imagenet", "torchvision", "")),
        "data parallel": (plain, prefixed(ours, "module."), ("resnet18", "imagenet", "torchvision", "")),
        "compiled": (plain, prefixed(ours, "_orig_mod.module."), ("resnet18", "imagenet", "torchvision", "")),
        "moco": (
            plain,
            prefixed(copy, "module.encoder_k.")
            | prefixed(ours | head("fc"), "module.encoder_q.")
            | {"module.queue": torch.ones(128, 64), "module.queue_ptr": torch.ones(1, dtype=torch.int64)},
            ("resnet18", "imagenet", "torchvision", "encoder_q."),
        ),
        "moco v3": (
            plain,
            prefixed(copy | head("fc"), "module.momentum_encoder.")
            | prefixed(ours | head("fc"), "module.base_encoder."),
            ("resnet18", "imagenet", "torchvision", "base_encoder."),
        ),
        "simsiam": (
            plain,
            prefixed(ours | head("fc"), "module.encoder.") | head("module.predictor"),
            ("resnet18", "imagenet", "torchvision", "encoder."),
        ),
        "solo-learn": (
            padded,
            prefixed(resnet(stem="cifar").state_dict(), "momentum_backbone.")
            | prefixed(padded.state_dict(), "backbone.")
            | {"classifier.weight": torch.ones(10, 512), "classifier.bias": torch.ones(10)},
            ("resnet18", "cifar_padding2", "torchvision", "backbone."),
        ),
        "ours": (
            narrow,
            prefixed(narrow.state_dict(), "backbone.") | head("projector"),
            ("resnet18", "cifar", "torchvision", "backbone."),
        ),
        "lightly, torchvision's": (
            numbered,
            prefixed(numbered.state_dict(), "backbone_momentum.")
            | prefixed(numbered.state_dict(), "backbone.")
            | head("projection_head"),
            ("resnet18", "imagenet", "torchvision_numbered", "backbone."),
        ),
        "lightly": (*lightly_resnet(), ("resnet10", "cifar", "lightly", "")),
        "lightly, numbered": (*lightly_sequential(), ("resnet10", "cifar_no_relu", "lightly_numbered", "backbone.")),
        "timm": (*timm_resnet(), ("resnet18", "imagenet", "torchvision", "")),
    }


SOURCES = sources()


@pytest.mark.parametrize("name", SOURCES)
@torch.inference_mode()
def test_the_matched_network_has_the_outputs_of_its_source(name):
    source, weights, expected = SOURCES[name]
    found = match(weights)
    assert (found.backbone.name, found.backbone.stem, found.layout, found.prefix) == expected
    images = pictures(64 if expected[1] == "imagenet" else 32)
    theirs = source(images)
    assert theirs.std() > 0.01
    torch.testing.assert_close(rebuilt(weights, found)(images), theirs, rtol=1e-5, atol=1e-5)


def headless(model):
    """A torchvision model without its last layer."""
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    model.set_submodule(last, nn.Identity())
    return nn.Sequential(model, nn.Flatten())


@pytest.mark.parametrize(
    "name", ["resnext50_32x4d", "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_x_400mf", "densenet121"]
)
@torch.inference_mode()
def test_torchvisions_other_networks_are_matched(name):
    model = randomise(torchvision.models.get_model(name, weights=None))
    weights = prefixed(model.state_dict(), "module.")
    found = match(weights)
    assert found.backbone.name == f"torchvision_{name}"
    images = pictures(64)
    torch.testing.assert_close(rebuilt(weights, found)(images), headless(model)(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", TORCHVISIONS_FIRST)
def test_every_family_of_torchvision_has_its_first_weight(family):
    name = next(name for name in TORCHVISION if name.startswith(family))
    with backbones.MetaTensors():
        assert TORCHVISIONS_FIRST[family] in torchvision_models.TorchvisionModel(name).body.state_dict()


def test_every_network_of_torchvision_is_of_a_family():
    assert [name for name in TORCHVISION if not name.startswith(tuple(TORCHVISIONS_FIRST))] == []


def test_the_width_is_that_of_the_first_convolution():
    with backbones.MetaTensors():
        weights = ResNet("resnet34", width=0.25, stem="cifar").state_dict()
    found = match(weights)
    assert (found.backbone.name, found.backbone.width) == ("resnet34", 0.25)


def test_a_known_stem_is_used_unless_it_is_impossible():
    _, weights, _ = SOURCES["solo-learn"]
    found = match(weights, stem="cifar_stride2")
    assert (found.backbone.stem, found.notes) == ("cifar_stride2", ())
    assert "cifar_padding2" in match(weights).notes[0]
    for name, stem in {"solo-learn": "imagenet", "torchvision": "cifar"}.items():
        with pytest.raises(BadWeights, match="the stem is not"):
            match(SOURCES[name][1], stem=stem)


def test_a_known_backbone_is_the_only_candidate():
    weights = SOURCES["torchvision"][1]
    assert match(weights, backbone="torchvision_resnet18").backbone.name == "torchvision_resnet18"
    with pytest.raises(BadWeights, match="nearest to resnet34") as refusal:
        match(weights, backbone="resnet34")
    assert refusal.value.code == "missing_weights"


def test_missing_weights_are_listed_and_counters_are_optional():
    weights = {name: value for name, value in SOURCES["simsiam"][1].items() if not name.endswith("tracked")}
    assert len(match(weights).names) == 100
    del weights["module.encoder.layer2.0.bn1.running_var"]
    weights["module.encoder.layer1.0.conv1.weight"] = torch.ones(64, 64, 1, 1)
    with pytest.raises(BadWeights) as refusal:
        match(weights)
    assert [(item["pointer"], item["code"]) for item in refusal.value.errors] == [
        ("/tensors/module.encoder.layer1.0.conv1.weight", "wrong_shape"),
        ("/tensors/encoder.layer2.0.bn1.running_var", "missing_weights"),
    ]


def test_a_larger_network_with_a_missing_weight_is_not_matched_as_a_smaller_one():
    weights = torchvision.models.resnet34(weights=None).state_dict()
    del weights["layer3.5.conv2.weight"]
    with pytest.raises(BadWeights, match="nearest to resnet34"):
        match(weights)


@pytest.mark.parametrize("weights", [{}, {"a": torch.ones(3)}, {"blocks.0.attn.qkv.weight": torch.ones(3, 3)}])
def test_weights_of_no_supported_network_are_refused(weights):
    with pytest.raises(BadWeights) as refusal:
        match(weights)
    assert refusal.value.code == "unknown_network"

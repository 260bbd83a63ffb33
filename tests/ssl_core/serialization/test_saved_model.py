"""Saved models: loading gives the same encoder, and the same tensors give the same bytes."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ssl_core.models.torchvision_ops  # noqa: F401 - has to come before torchvision

# isort: split
import torchvision.models

from ssl_core import config
from ssl_core.checksums import document
from ssl_core.device import Device
from ssl_core.errors import BadModel, Corrupt, ModelMissing
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.serialization import saved_model
from ssl_core.training.resolve import resolve
from tests.ssl_core.toys import build_method

REPORT = {"splits": {"train": {"images": 64}}, "sizes": [{"width": 16, "height": 16, "images": 64}]}
PREPROCESSING = Preprocessing.of(16, [0.5, 0.4, 0.3], [0.2, 0.0, 0.3])


def resolved(method="simclr", **backbone):
    shape = backbone if "name" in backbone else {"name": "resnet10", "width": 0.125, "stem": "cifar"} | backbone
    method = {"name": method} if isinstance(method, str) else method
    asked = config.parse({"method": method, "backbone": shape, "batch_size": 16})
    return resolve(asked, REPORT, Device("cpu", gains_from_bf16=False))


def saved(directory, method="simclr", seed=1, **backbone):
    """Save a model and return its encoder."""
    run = resolved(method, **backbone)
    network = build_method(run, seed)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)  # as after training
    encoder = Encoder(network.backbone, network.projector, PREPROCESSING)
    metadata = {"method": run.method.name, "config": run.model_dump(mode="json")}
    saved_model.save(directory, encoder, run.backbone, network.heads(), metadata)
    return encoder


def write_card(directory, card):
    """Replace the model's card, as an edit on purpose does."""
    (directory / saved_model.CARD).write_text(json.dumps(document.seal(card)))


def pixels(n=5):
    return torch.randint(0, 256, (n, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("method", ["simclr", "simsiam"])
def test_the_loaded_encoder_gives_the_same_features_in_every_layer(tmp_path, method):
    before = saved(tmp_path, method)
    after = saved_model.load(tmp_path)
    assert after.layers == before.layers
    for layer, dim in after.layers.items():
        features = after.encode(pixels(), layer)
        assert features.shape == (5, dim)
        torch.testing.assert_close(features, before.encode(pixels(), layer), rtol=0, atol=0)


def test_the_layers_of_a_resnet_are_features_projection_and_blocks(tmp_path):
    encoder = saved(tmp_path)
    blocks = {"block1": 8, "block2": 16, "block3": 32, "block4": 64}
    assert encoder.layers == {"backbone": 64, "head1": 64, "projection": 128, **blocks}
    torch.testing.assert_close(encoder.encode(pixels(), "block4"), encoder.encode(pixels()))
    with pytest.raises(KeyError):
        encoder.encode(pixels(), "block5")


def test_a_batch_equals_its_singles(tmp_path):
    encoder = saved(tmp_path)
    singles = torch.cat([encoder.encode(one[None]) for one in pixels()])
    torch.testing.assert_close(encoder.encode(pixels().numpy()), singles, rtol=1e-5, atol=1e-6)


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / name, seed=4)
    for file in (saved_model.WEIGHTS, saved_model.HEADS, saved_model.CARD):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_weights_have_torchvisions_names(tmp_path):
    saved(tmp_path, name="resnet18", width=1.0, stem="imagenet")
    reference = torchvision.models.get_model("resnet18", weights=None)
    missing = reference.load_state_dict(load_file(tmp_path / saved_model.WEIGHTS), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"]
    assert missing.unexpected_keys == []


def test_weights_of_torchvision_models_have_torchvisions_names(tmp_path):
    encoder = saved(tmp_path, name="torchvision_shufflenet_v2_x0_5")
    reference = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None)
    missing = reference.load_state_dict(load_file(tmp_path / saved_model.WEIGHTS), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"]
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(saved_model.load(tmp_path).encode(images), encoder.encode(images))


def test_a_mnasnet_whose_state_dict_has_a_version_is_loaded(tmp_path):
    encoder = saved(tmp_path, name="torchvision_mnasnet0_5")
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(saved_model.load(tmp_path).encode(images), encoder.encode(images))


def test_a_card_with_an_invalid_config_still_describes_its_backbone(tmp_path):
    encoder = saved(tmp_path, name="torchvision_shufflenet_v2_x0_5")
    card = saved_model.load_card(tmp_path)
    card["backbone"] |= {"width": 0.5, "stem": "cifar", "zero_init_residual": True}
    card["config"]["checkpoints"]["keep"] = 1
    write_card(tmp_path, card)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(saved_model.load(tmp_path).encode(images), encoder.encode(images))


def test_the_layers_of_the_head_are_those_between_backbone_and_projection(tmp_path):
    encoder = saved(tmp_path)
    dense, norm, relu = list(encoder.projector)[:3]
    with torch.inference_mode():
        hidden = relu(norm(dense(encoder.encode(pixels()))))
    torch.testing.assert_close(encoder.encode(pixels(), "head1"), hidden)
    assert hidden.max() > 0


@pytest.mark.parametrize(
    "method",
    [
        {"name": "simclr"},
        {"name": "simclr", "projector_batch_norm": False},
        {"name": "simsiam", "projector_relu_first": True},
    ],
)
def test_models_of_format_1_are_loaded(tmp_path, method):
    encoder = saved(tmp_path, method)
    card = saved_model.load_card(tmp_path)
    del card["projector"]
    write_card(tmp_path, card | {"format": 1})
    torch.testing.assert_close(
        saved_model.load(tmp_path).encode(pixels(), "projection"), encoder.encode(pixels(), "projection")
    )


@pytest.mark.parametrize(("method", "last_norm"), [("simclr", "scale"), ("simsiam", "fixed")])
def test_cards_with_earlier_words_for_the_last_norm_are_still_read(tmp_path, method, last_norm):
    encoder = saved(tmp_path, method)
    card = saved_model.load_card(tmp_path)
    assert card["projector"]["last_norm"] != last_norm
    card["projector"]["last_norm"] = last_norm
    write_card(tmp_path, card)
    torch.testing.assert_close(
        saved_model.load(tmp_path).encode(pixels(), "projection"), encoder.encode(pixels(), "projection")
    )


def test_an_encoder_may_have_no_projector(tmp_path):
    network = build_method(resolved(), 1)
    encoder = Encoder(network.backbone, None, PREPROCESSING)
    saved_model.save(tmp_path, encoder, resolved().backbone, {}, {})
    loaded = saved_model.load(tmp_path)
    assert "projection" not in loaded.layers
    torch.testing.assert_close(loaded.encode(pixels()), encoder.encode(pixels()))


def test_all_heads_are_saved(tmp_path):
    saved(tmp_path, "simsiam")
    names = {name.split(".")[0] for name in load_file(tmp_path / saved_model.HEADS)}
    assert names == {"projector", "predictor"}


def test_prepare_takes_the_central_square(tmp_path):
    encoder = saved(tmp_path)
    image = np.zeros((20, 60, 3), dtype=np.uint8)
    image[:, 20:40] = 200
    prepared = encoder.prepare(image)
    assert prepared.shape == (16, 16, 3)
    assert (prepared[:, 1:-1] == 200).all()


def test_a_constant_channel_is_not_scaled():
    images = PREPROCESSING.normalise_(torch.full((1, 3, 2, 2), 0.5))
    torch.testing.assert_close(images[0, :, 0, 0], torch.tensor([0.0, 0.1, 0.2 / 0.3]))


def test_an_untrained_encoder_has_the_shape_and_other_weights(tmp_path):
    trained = saved(tmp_path, seed=1)
    random = saved_model.load_untrained(tmp_path, seed=2)
    assert random.layers == trained.layers
    assert not torch.allclose(random.encode(pixels()), trained.encode(pixels()))


def test_the_config_in_the_card_is_valid(tmp_path):
    saved(tmp_path)
    card = json.loads((tmp_path / saved_model.CARD).read_text())
    assert config.parse(card["config"]) == resolved()


@pytest.mark.parametrize("file", [saved_model.WEIGHTS, saved_model.HEADS, saved_model.CARD])
@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_a_damaged_model_is_refused(tmp_path, file, damage):
    saved(tmp_path / "a")
    saved(tmp_path / "b", "simsiam", width=0.25)
    path = tmp_path / "a" / file
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    else:
        path.write_bytes((tmp_path / "b" / file).read_bytes() if file != saved_model.CARD else b'{"format": 1}')
    known = damage != "missing" and (file, damage) != (saved_model.CARD, "foreign")  # by a checksum, or as no JSON
    error = ModelMissing if damage == "missing" else Corrupt if known else BadModel
    with pytest.raises(error, match="version" if error is BadModel else file):
        saved_model.load(tmp_path / "a")


@pytest.mark.parametrize("file", [saved_model.WEIGHTS, saved_model.HEADS, saved_model.CARD])
def test_a_flipped_byte_is_found(tmp_path, file):
    saved(tmp_path)
    data = bytearray((tmp_path / file).read_bytes())
    data[data.index(b"0.5") if file == saved_model.CARD else -9] ^= 1  # still JSON, and still a tensor
    (tmp_path / file).write_bytes(data)
    with pytest.raises(Corrupt, match=file):
        saved_model.load(tmp_path)


def test_a_model_without_checksums_is_loaded_unchecked(tmp_path):
    encoder = saved(tmp_path)
    card = saved_model.load_card(tmp_path)
    (tmp_path / saved_model.CARD).write_text(json.dumps({k: card[k] for k in card if k not in ("files", "checksum")}))
    torch.testing.assert_close(saved_model.load(tmp_path).encode(pixels()), encoder.encode(pixels()))


def test_weights_are_loaded_only_into_a_backbone_of_the_same_shape(tmp_path):
    saved(tmp_path)
    with pytest.raises(BadModel, match="another shape"):
        saved_model.load_backbone(build_method(resolved(width=0.25), 0).backbone, tmp_path)


def test_the_pixels_baseline_is_normalised_like_the_encoders_input():
    preprocessing = Preprocessing.of(2, [0.5, 0.25, 0.0], [0.5, 0.25, 1.0])
    image = torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1).repeat(1, 1, 2, 2)
    expected = torch.tensor([1.0, -1.0, 0.2]).repeat_interleave(4)
    torch.testing.assert_close(preprocessing.flatten(image), expected[None])

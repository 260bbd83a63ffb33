"""Import of pretrained weights: the saved model, its report, evaluation and further training, and errors."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ssl_core import config
from ssl_core.__main__ import main
from ssl_core.config import Import
from ssl_core.errors import BadWeights
from ssl_core.events import Model, Result
from ssl_core.inputs import Inputs
from ssl_core.models import resnet, torchvision_models
from ssl_core.pretrained.weights import import_weights
from ssl_core.run import run
from ssl_core.serialization import saved_model
from tests.ssl_core.digits import TINY, pack_digits

SMALL = {"width": 0.125, "stem": "cifar"}


def weights(prefix="module.encoder_q.", dtype=torch.float32):
    """Weights of a tiny network, with two other tensors."""
    torch.manual_seed(2)
    network = resnet.ResNet("resnet10", **SMALL)
    found = {
        prefix + name: value.to(dtype) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    return found | {f"{prefix}fc.weight": torch.ones(3, 64), "queue": torch.ones(64, 4)}


def imported(folder, content, **asked):
    torch.save(content, folder / "weights.pt")
    return import_weights(folder / "weights.pt", folder / "model", Import.model_validate_json(json.dumps(asked)))


def pixels(side=32):
    return torch.randint(0, 256, (4, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_the_saved_model_has_no_projector_and_equals_its_source(tmp_path):
    _, card = imported(tmp_path, weights())
    encoder = saved_model.load(tmp_path / "model")
    assert saved_model.load_card(tmp_path / "model") == card
    assert (card["backbone"], card["projector"]) == (
        {"name": "resnet10", **SMALL, "channels": 3, "selective_kernel": False, "layout": "torchvision"},
        None,
    )
    assert set(encoder.layers) == {"backbone", "block1", "block2", "block3", "block4"}
    features = encoder.encode(pixels())
    source = resnet.ResNet("resnet10", **SMALL).eval()
    source.load_state_dict({name: value for name, value in weights("").items() if name in source.state_dict()})
    mean, std = torch.tensor(card["preprocessing"]["mean"]), torch.tensor(card["preprocessing"]["std"])
    images = ((pixels() / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(features, source(images), rtol=1e-5, atol=1e-5)
    with pytest.raises(KeyError):
        encoder.encode(pixels(), "projection")


def test_the_report_lists_tensors_matched_left_out_and_missing(tmp_path):
    content = {
        name: value for name, value in weights().items() if not name.endswith("encoder_q.bn1.num_batches_tracked")
    }
    _, card = imported(tmp_path, {"state_dict": content, "epoch": 3})
    report = card["imported"]
    assert (report["layout"], report["prefix"]) == ("torchvision", "state_dict.encoder_q.")
    assert report["left_out"] == ["state_dict.module.encoder_q.fc.weight", "state_dict.queue"]
    assert (report["matched"], report["left_out_count"], report["missing"]) == (71, 2, ["bn1.num_batches_tracked"])
    assert (report["file"]["format"], report["file"]["types"]) == ("torch", ["float32"])
    assert "cifar" in report["notes"][0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_become_float32(tmp_path, dtype):
    _, card = imported(tmp_path, weights(dtype=dtype))
    assert card["imported"]["file"]["types"] == [str(dtype).removeprefix("torch.")]
    assert {value.dtype for value in saved_model.load(tmp_path / "model").parameters()} == {torch.float32}


@pytest.mark.parametrize("counter", [torch.tensor(7.0).half(), torch.ones(5, dtype=torch.int64)])
def test_a_counter_of_another_type_is_missing_without_an_error(tmp_path, counter):
    _, card = imported(tmp_path, weights("") | {"bn1.num_batches_tracked": counter})
    assert (card["imported"]["matched"], card["imported"]["missing"]) == (71, ["bn1.num_batches_tracked"])
    assert "bn1.num_batches_tracked" in card["imported"]["left_out"]


def test_the_readme_has_the_sha256_of_the_file(tmp_path):
    _, card = imported(tmp_path, weights())
    page = (tmp_path / "model" / saved_model.README).read_text()
    assert f"of a file, SHA-256 `{card['imported']['file']['sha256']}`" in page
    assert page.startswith("# resnet10")


def test_preprocessing_is_configured_or_depends_on_the_stem(tmp_path):
    _, card = imported(tmp_path, weights())
    assert (card["preprocessing"]["image_size"], card["preprocessing"]["mean"][0]) == (32, 0.4914)
    _, card = imported(
        tmp_path, weights(), image_size=48, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.25], stem="cifar_stride2"
    )
    assert (card["preprocessing"]["image_size"], card["preprocessing"]["std"]) == (48, [0.5, 0.5, 0.25])
    assert card["backbone"]["stem"] == "cifar_stride2"


def test_a_saved_models_own_weights_import_unchanged(tmp_path):
    _, card = imported(tmp_path, weights())
    _, again = import_weights(tmp_path / "model" / saved_model.WEIGHTS, tmp_path / "again", Import())
    assert (again["backbone"], again["imported"]["file"]["format"]) == (card["backbone"], "safetensors")
    for file in (saved_model.WEIGHTS, saved_model.HEADS):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "model" / file).read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("layer1.0.conv1.weight", torch.full((8, 8, 3, 3), float("nan")), "not_finite"),
        ("layer1.0.conv1.weight", torch.full((8, 8, 3, 3), 1e300, dtype=torch.float64), "not_finite"),
        ("layer1.0.conv1.weight", torch.ones(8, 8, 3, 3, dtype=torch.int32), "wrong_type"),
        ("layer1.0.conv1.weight", torch.ones(8, 8, 3, 3, dtype=torch.complex64), "wrong_type"),
        ("layer1.0.conv1.weight", torch.ones(1).expand(10**6, 10**6), "wrong_shape"),
        ("layer1.0.bn1.running_var", torch.full((8,), -1.0), "not_finite"),
    ],
    ids=["nan", "beyond float32", "integers", "complex", "endless", "negative variance"],
)
def test_invalid_weights_are_refused_and_nothing_is_written(tmp_path, name, value, code):
    with pytest.raises(BadWeights) as refusal:
        imported(tmp_path, weights("") | {name: value})
    assert refusal.value.code == code
    assert not (tmp_path / "model").exists()


def test_an_image_size_that_the_network_cannot_take_is_refused(tmp_path):
    torch.save(torchvision_models.TorchvisionModel("squeezenet1_1").body.state_dict(), tmp_path / "weights.pt")
    asked = Import(backbone="torchvision_squeezenet1_1", image_size=8)
    with pytest.raises(BadWeights, match="cannot take images of 8 pixels"):
        import_weights(tmp_path / "weights.pt", tmp_path / "model", asked)


def test_an_imported_model_is_evaluated_and_trained_further(tmp_path):
    digits = pack_digits(tmp_path / "digits")
    imported(tmp_path, weights(), image_size=8)
    (tmp_path / "evaluated").mkdir()
    evaluation = config.parse({"k": 5}, "knn_eval")
    *_, last = run(evaluation, Inputs(digits, model=tmp_path / "model"), tmp_path / "evaluated")
    assert isinstance(last, Result)
    shape = {name: value for name, value in TINY.items() if name != "backbone"}
    further = config.parse({"method": {"name": "simclr"}, "epochs": 1, **shape})
    (tmp_path / "further").mkdir()
    events = list(run(further, Inputs(digits, model=tmp_path / "model"), tmp_path / "further"))
    assert isinstance(events[-1], Result), events[-1]
    model = next(event for event in events if isinstance(event, Model))
    assert (model.card["backbone"]["width"], model.card["backbone"]["stem"]) == (0.125, "cifar")
    assert "projection" in model.card["layers"]


def test_the_command_writes_a_model_and_prints_the_report(tmp_path, capsys):
    save_file({name: value.contiguous() for name, value in weights().items()}, tmp_path / "w")
    words = ["import-weights", str(tmp_path / "w"), "--out", str(tmp_path / "model")]
    assert main([*words, "--image-size", "16", "--mean", "0.5", "0.5", "0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["backbone"] == {
        "name": "resnet10",
        **SMALL,
        "channels": 3,
        "selective_kernel": False,
        "layout": "torchvision",
    }
    assert saved_model.load(tmp_path / "model").preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("w",), 1, "neither safetensors nor"),
        (("missing",), 2, "No such file"),
        (("w", "--backbone", "resnet51"), 2, "did you mean `resnet50`"),
        (("w", "--image-size", "7"), 2, "/image_size"),
    ],
)
def test_the_command_reports_errors(tmp_path, capsys, words, status, sentence):
    (tmp_path / "w").write_bytes(b"hello")
    assert main(["import-weights", str(tmp_path / words[0]), "--out", str(tmp_path / "m"), *words[1:]]) == status
    assert sentence in capsys.readouterr().err


def test_weights_of_five_channels_need_a_mean_and_a_deviation_of_each(tmp_path):
    source = resnet.ResNet("resnet10", channels=5, **SMALL).eval()
    with pytest.raises(BadWeights, match="takes images of 5 channels, and `mean` is of 3") as caught:
        imported(tmp_path, source.state_dict())
    assert caught.value.code == "channels_differ"
    _, card = imported(tmp_path, source.state_dict(), mean=[0.5] * 5, std=[0.25] * 5)
    encoder = saved_model.load(tmp_path / "model")
    assert (card["backbone"]["channels"], encoder.channels) == (5, 5)
    images = torch.randint(0, 256, (2, 32, 32, 5), dtype=torch.uint8)
    wanted = source((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
    torch.testing.assert_close(encoder.encode(images), wanted, rtol=1e-5, atol=1e-5)


def test_weights_of_torchvisions_models_may_have_other_channels(tmp_path):
    source = torchvision_models.TorchvisionModel("squeezenet1_1", channels=2).body
    _, card = imported(tmp_path, source.state_dict(), mean=[0.5] * 2, std=[0.25] * 2, image_size=32)
    assert (card["backbone"]["name"], card["backbone"]["channels"]) == ("torchvision_squeezenet1_1", 2)
    assert len(saved_model.load(tmp_path / "model").encode(torch.zeros(3, 32, 32, 2, dtype=torch.uint8))) == 3

"""Backbones: parity with torchvision, blocks, widths, stems and ImageNet weights."""

import pytest
import torch
from pydantic import ValidationError

import ssl_core.models.torchvision_ops  # noqa: F401 - must be imported before torchvision

# isort: split
import torchvision.models

from ssl_core import config
from ssl_core.config import architectures
from ssl_core.errors import WeightsUnavailable
from ssl_core.models import backbones
from tests import servers

# Gradients that `torch.use_deterministic_algorithms` lists as not deterministic on CUDA.
NOT_DETERMINISTIC = ("AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool3", "FractionalMaxPool", "GridSampler", "MaxPool3")
NOT_DETERMINISTIC += ("MaxUnpool", "ReflectionPad", "ReplicationPad", "Upsample")
OURS = [name for name in config.BACKBONES if not name.startswith("torchvision_")]


def resolved(**fields):
    return config.Backbone(**{"width": 1.0, "stem": "imagenet", "zero_init_residual": False} | fields)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_width_one_has_torchvisions_keys_and_outputs(name):
    reference = torchvision.models.get_model(name, weights=None)
    reference.fc = torch.nn.Identity()
    ours = backbones.build(resolved(name=name))
    ours.load_state_dict(reference.state_dict())  # strict: the same keys and shapes
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), reference(images))
    torch.testing.assert_close(ours.eval()(images), reference.eval()(images))


@pytest.mark.parametrize(
    ("name", "depth", "parameters"), [("resnet34", 34, 21_284_672), ("resnet101", 101, 42_500_160)]
)
def test_deeper_networks_have_torchvisions_number_of_parameters(name, depth, parameters):
    with torch.device("meta"):
        network = backbones.build(resolved(name=name))
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "width", "selective", "millions"),
    [
        ("resnet50", 1, False, 24),
        ("resnet50", 1, True, 35),
        ("resnet50", 2, False, 94),
        ("resnet50", 2, True, 140),
        ("resnet101", 1, False, 43),
        ("resnet101", 1, True, 65),
        ("resnet101", 2, False, 170),
        ("resnet101", 2, True, 257),
        ("resnet152", 1, False, 58),
        ("resnet152", 1, True, 89),
        ("resnet152", 2, False, 233),
        ("resnet152", 2, True, 354),
        ("resnet152", 3, True, 795),
    ],
)
def test_networks_have_the_sizes_of_simclrv2s_table_1(name, width, selective, millions):
    """Table 1 of arXiv:2006.10029; its numbers include the running means and variances of batch norm."""
    with torch.device("meta"):
        network = backbones.build(resolved(name=name, width=width, selective_kernel=selective, layout="google"))
    counted = [value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")]
    assert round(sum(value.numel() for value in counted) / 1e6) == millions


@pytest.mark.parametrize("stem", ["cifar", "cifar_stride2", "imagenet"])
def test_a_network_with_selective_kernels_trains(stem):
    torch.manual_seed(0)
    shape = resolved(name="resnet50", width=0.125, stem=stem, selective_kernel=True, layout="google")
    network = backbones.build(shape)
    features = network(torch.rand(4, 3, 33, 33))
    assert features.shape == (4, network.dim)
    features.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert {layer: x.shape[1] for layer, x in network.blocks(torch.rand(2, 3, 33, 33)).items()} == network.block_dims


def test_every_stage_of_the_google_layout_starts_with_a_projection():
    torchvision_layout, google_layout = (
        backbones.build(resolved(name="resnet18", width=0.125, layout=layout)) for layout in ("torchvision", "google")
    )
    assert torchvision_layout.layer1[0].downsample is None
    assert google_layout.layer1[0].downsample is not None
    assert [block.downsample for block in (google_layout.layer1[1], google_layout.layer2[1])] == [None, None]


def test_resnet10_is_one_basic_block_a_stage():
    network = backbones.build(resolved(name="resnet10", width=0.5, stem="cifar"))
    assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3, network.layer4)] == [1, 1, 1, 1]
    assert network.dim == 256


@pytest.mark.parametrize(("width", "dim"), [(0.125, 64), (0.25, 128), (2.0, 1024), (3.0, 1536)])
def test_width_multiplies_every_stage(width, dim):
    with torch.device("meta"):
        network = backbones.build(resolved(name="resnet18", width=width))
    assert network.dim == dim == network.layer4[-1].conv2.out_channels
    assert network.conv1.out_channels == dim // 8


@pytest.mark.parametrize(
    ("stem", "side"),
    [("cifar", 32), ("cifar_no_relu", 32), ("cifar_stride2", 16), ("cifar_padding2", 34), ("imagenet", 8)],
)
def test_stems_have_their_output_sizes(stem, side):
    network = backbones.build(resolved(name="resnet10", width=0.125, stem=stem))
    x = network.maxpool(network.bn1(network.conv1(torch.rand(2, 3, 32, 32))))
    assert x.shape[-2:] == (side, side)


def test_blocks_end_in_the_features():
    network = backbones.build(resolved(name="resnet10", width=0.125, stem="cifar")).eval()
    images = torch.rand(3, 3, 16, 16)
    blocks = network.blocks(images)
    assert {name: x.shape[1] for name, x in blocks.items()} == network.block_dims
    torch.testing.assert_close(blocks["block4"], network(images))


def test_zero_init_makes_a_block_the_identity():
    network = backbones.build(resolved(name="resnet10", width=0.125, stem="cifar", zero_init_residual=True))
    x = torch.rand(2, 8, 8, 8)
    torch.testing.assert_close(network.layer1(x), x)


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("torchvision_mobilenet_v3_small", 1024),
        ("torchvision_squeezenet1_1", 512),
        ("torchvision_shufflenet_v2_x0_5", 1024),
        ("torchvision_regnet_y_400mf", 440),
    ],
)
def test_torchvision_models_have_no_classifier(name, dim):
    network = backbones.build(resolved(name=name))
    assert network.dim == dim
    assert network.eval()(torch.rand(2, 3, 64, 64)).shape == (2, dim)


@pytest.mark.parametrize("name", ["torchvision_densenet121", "torchvision_swin_t", "torchvision_inception_v3"])
def test_other_torchvision_architectures_have_a_known_width(name):
    with torch.device("meta"):
        assert backbones.build(resolved(name=name)).dim == {"d": 1024, "s": 768, "i": 2048}[name[12]]


def test_the_backbone_names_of_a_config_exist():
    assert tuple(torchvision.models.list_models(module=torchvision.models)) == architectures.TORCHVISION
    assert [*config.BACKBONES] == [*OURS, *(f"torchvision_{name}" for name in architectures.TORCHVISION)]
    for name in config.BACKBONES:
        assert config.Backbone(name=name).name == name


@pytest.mark.parametrize("name", OURS)
def test_each_resnet_has_features_of_its_width(name):
    network = backbones.build(resolved(name=name, width=0.125, stem="cifar")).eval()
    images = torch.rand(2, 3, 16, 16)
    assert network(images).shape == (2, network.dim)
    assert {layer: x.shape for layer, x in network.blocks(images).items()} == {
        layer: (2, width) for layer, width in network.block_dims.items()
    }
    assert network.body.state_dict()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resnet19", "resnet18"),
        ("torchvision_vit_b16", "torchvision_vit_b_16"),
        ("torchvision_fcn_resnet50", "resnet50"),
    ],
)
def test_unknown_backbone_is_refused_with_the_nearest_name(name, meant):
    with pytest.raises(ValidationError, match=f"no backbone `{name}`.*{meant}"):
        resolved(name=name)


def test_weights_may_be_torchvisions_first_or_newest(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    known, folder = torchvision.models.get_model_weights("resnet50"), tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    whole = torchvision.models.get_model("resnet50", weights=None).state_dict()
    for value, weights in ((1.0, known.IMAGENET1K_V1), (2.0, known.DEFAULT)):
        whole["bn1.weight"].fill_(value)
        torch.save(whole, folder / weights.url.rsplit("/", 1)[1])
    for name, value in (("imagenet_v1", 1.0), ("imagenet", 2.0)):
        asked = resolved(name="resnet50", weights=name)
        network = backbones.build(asked)
        backbones.load_imagenet(network, asked)
        assert network.bn1.weight.tolist() == [value] * 64


def test_imagenet_weights_are_loaded_except_the_first_convolution_of_a_cifar_stem(tmp_path, monkeypatch):
    reference = torchvision.models.get_model("resnet18", weights=None)
    url = torchvision.models.get_model_weights("resnet18").DEFAULT.url
    cached = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1]  # torch's download cache
    cached.parent.mkdir(parents=True)
    torch.save(reference.state_dict(), cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for stem in ("imagenet", "cifar"):
        asked = resolved(name="resnet18", stem=stem, weights="imagenet")
        network = backbones.build(asked)
        backbones.load_imagenet(network, asked)
        torch.testing.assert_close(network.layer4[1].conv2.weight, reference.layer4[1].conv2.weight)
        assert (network.conv1.weight.shape == reference.conv1.weight.shape) == (stem == "imagenet")


def test_a_failed_download_of_imagenet_weights_may_be_retried(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked = resolved(name="resnet18", weights="imagenet")
    network = backbones.build(asked)
    with servers.dead_port() as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(WeightsUnavailable, match="resnet18") as caught:
            backbones.load_imagenet(network, asked)
    assert caught.value.retry


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"name": "resnet10", "weights": "imagenet"}, "/backbone/weights", "resnet10"),
        ({"name": "resnet18", "width": 0.5, "weights": "imagenet"}, "/backbone/weights", "width 0.5"),
        ({"width": 2.0, "weights": "imagenet"}, "/backbone/weights", "width 2.0"),
        ({"name": "torchvision_vgg11", "width": 0.5}, "/backbone/width", "`width`"),
        ({"name": "torchvision_vgg11", "stem": "cifar"}, "/backbone/stem", "`stem`"),
        ({"name": "torchvision_vgg11", "zero_init_residual": True}, "/backbone/zero_init_residual", "`zero_init"),
        ({"name": "torchvision_resnet50", "layout": "google"}, "/backbone/layout", "`layout`"),
        (
            {"name": "torchvision_resnet50", "selective_kernel": True},
            "/backbone/selective_kernel",
            "`selective_kernel`",
        ),
        ({"name": "resnet34", "selective_kernel": True}, "/backbone/selective_kernel", "resnet50 is the smallest"),
        ({"selective_kernel": True, "layout": "torchvision"}, "/backbone/layout", "layout google"),
        ({"selective_kernel": True, "weights": "imagenet"}, "/backbone/weights", "torchvision's"),
        ({"layout": "google", "weights": "imagenet"}, "/backbone/weights", "torchvision's"),
        ({"name": "torchvision_vit_h_14", "weights": "imagenet_v1"}, "/backbone/weights", "IMAGENET1K_V1"),
        ({"name": "resnet10", "weights": "imagenet_v1"}, "/backbone/weights", "resnet10"),
    ],
)
def test_unsupported_backbone_options_are_refused_by_the_config(fields, pointer, words):
    with pytest.raises(ValidationError) as caught:
        config.parse({"method": {"name": "simclr"}, "backbone": fields})
    (fault,) = config.faults(caught.value, "pretrain")
    assert fault["pointer"] == pointer
    assert words in fault["detail"]


def test_every_network_but_the_smallest_has_imagenet_weights():
    for name in config.BACKBONES:
        if name != "resnet10":
            assert config.Backbone(name=name, weights="imagenet").weights == "imagenet"
            known = torchvision.models.get_model_weights(name.removeprefix("torchvision_"))
            assert known.DEFAULT
            assert ("IMAGENET1K_V1" in known.__members__) == (
                name.removeprefix("torchvision_") not in architectures.LATER_WEIGHTS
            )


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize(
    "fields",
    [
        {"name": "resnet10"},
        {"name": "resnet10", "layout": "google"},
        {"name": "resnet50", "layout": "google", "selective_kernel": True},
    ],
    ids=["torchvision", "google", "selective kernels"],
)
def test_gradients_are_deterministic_on_cuda(fields, stem):
    network = backbones.build(resolved(stem=stem, **fields | {"width": 0.0625}))
    nodes, seen = [network(torch.rand(2, 3, 32, 32)).grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    names = {node.name() for node in seen}
    assert any(name.startswith("Convolution") for name in names)
    assert not [name for name in names if name.startswith(NOT_DETERMINISTIC)]

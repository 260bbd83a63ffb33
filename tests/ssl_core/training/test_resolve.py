"""Resolution: nothing stays at auto, what is resolved resolves to itself, and each rule that a description promises."""

import subprocess
import sys

import pytest
import torch

from ssl_core import config
from ssl_core.device import Device
from ssl_core.errors import ConfigUnfit
from ssl_core.methods import METHODS
from ssl_core.models import backbones
from ssl_core.recipes import RECIPES
from ssl_core.training.compilation import is_launch_bound
from ssl_core.training.resolve import Length, resolve, resolve_device, with_length

CPU, BF16, GPU = Device("cpu", False), Device("cpu", True), Device("cuda", True)


def report(width=32, height=32, images=1000):
    sizes = [{"width": width, "height": height, "images": images}, {"width": 500, "height": 500, "images": 1}]
    return {"splits": {"train": {"images": images}}, "sizes": sizes}


def resolved_from(machine=CPU, data=None, **fields):
    return resolve(config.parse({"method": {"name": "simclr"}} | fields), data or report(), machine)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("machine", [CPU, BF16, GPU])
@pytest.mark.parametrize("side", [8, 28, 32, 300])
def test_nothing_stays_at_auto_and_the_result_resolves_to_itself(name, machine, side):
    resolved = resolved_from(machine, report(side, side), method={"name": name})
    text = resolved.model_dump_json()
    assert '"auto"' not in text
    assert resolve(resolved, report(64, 64), CPU if machine == GPU else GPU) == resolved.model_copy(
        update={"device": "cpu" if machine == GPU else "cuda"}
    )
    assert config.parse(resolved.model_dump(mode="json")) == resolved


@pytest.mark.parametrize(
    ("images", "fields", "batch_size"),
    [
        (1000, {}, 256),
        (256, {}, 256),
        (32, {}, 32),
        (2, {}, 2),
        (1000, {"subset": 31}, 31),
        (1000, {"devices": 3}, 255),
        (32, {"devices": 3}, 30),
        (3, {"devices": 3}, 3),
        (32, {"batch_size": 16}, 16),
        (1000, {"batch_size": 512}, 512),
    ],
)
def test_the_batch_of_pretraining_fits_the_images(images, fields, batch_size):
    assert resolved_from(CPU, report(images=images), **fields).batch_size == batch_size


def test_the_batch_of_a_run_with_labels_is_cut_to_them_when_it_trains():
    for fields, batch_size in (({}, 64), ({"devices": 3}, 63), ({"devices": 48}, 48), ({"batch_size": 1000}, 1000)):
        assert resolve(config.parse(fields, "supervised"), report(images=50), CPU).batch_size == batch_size


def test_too_few_images_are_refused_with_their_number():
    for images, fields, said in (
        (1, {}, "There is 1 training image; the run needs at least 2."),
        (3, {"devices": 4}, "There are 3 training images; the run needs at least 4, one for each of its devices."),
        (32, {"batch_size": 33}, "batch_size is 33, but there are 32 training images."),
    ):
        with pytest.raises(ConfigUnfit, match=said):
            resolved_from(CPU, report(images=images), **fields)


def test_long_runs_on_one_gpu_are_compiled():
    def compiles(machine, images=50_000, **fields):
        return resolved_from(machine, report(images=images), **fields).compile

    long = {"epochs": 52}  # 52 times 195 steps of 256 images
    assert compiles(GPU, **long)
    assert not compiles(GPU, epochs=51)
    assert compiles(GPU)  # 100 epochs
    assert not compiles(GPU, subset=1000)
    assert compiles(GPU, minutes=10, subset=1000)
    assert not compiles(GPU, minutes=9)
    assert not compiles(GPU, **long, devices=2)
    assert not compiles(GPU, **long, chunk_size=64)
    assert not compiles(GPU, **long, backbone={"name": "torchvision_resnet18"})
    assert not compiles(CPU, **long)
    assert compiles(CPU, images=1000, epochs=1, compile=True)
    assert not compiles(GPU, **long, compile=False)


def test_small_steps_on_a_gpu_are_launched_as_graphs():
    assert is_launch_bound(resolved_from(GPU))  # 256 images of 32 pixels, two views each
    assert not is_launch_bound(resolved_from(GPU, batch_size=512))
    assert not is_launch_bound(resolved_from(GPU, report(224, 224)))
    assert not is_launch_bound(resolved_from(CPU))


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.kind == "pretrain"])
def test_every_recipe_resolves(name):
    asked = config.parse(RECIPES[name].config)
    resolved = resolve(asked, report(images=50_000), CPU)
    if asked.minutes is not None:
        resolved = with_length(resolved, Length(7))
    assert '"auto"' not in resolved.model_dump_json()
    assert resolved.epochs == (asked.epochs or 7)


@pytest.mark.parametrize("method", METHODS)
def test_the_default_optimizer_is_muon_on_a_cpu_and_the_papers_on_a_gpu(method):
    asked = {"name": method}
    assert resolved_from(CPU, method=asked).optimizer.name == resolved_from(BF16, method=asked).optimizer.name == "muon"
    papers = "lars" if method in ("barlow_twins", "vicreg") else "sgd"
    assert resolved_from(GPU, method=asked).optimizer.name == papers
    assert resolved_from(CPU, method=asked, optimizer={"name": "sgd"}).optimizer.name == "sgd"


def test_network_and_precision_follow_the_device():
    cpu, bf16, gpu = resolved_from(CPU), resolved_from(BF16), resolved_from(GPU)
    assert (cpu.backbone.name, cpu.backbone.width, cpu.precision) == ("resnet10", 0.5, "fp32")
    assert (bf16.device, bf16.precision) == ("cpu", "bf16")
    assert (gpu.backbone.name, gpu.backbone.width, gpu.precision, gpu.device) == ("resnet18", 1, "bf16", "cuda")
    assert (cpu.evaluation.max_images, gpu.evaluation.max_images) == (2500, 5000)
    assert resolved_from(CPU, evaluation={"max_images": 70}).evaluation.max_images == 70


@pytest.mark.parametrize(
    ("machine", "width", "height", "size", "stem"),
    [
        (CPU, 32, 32, 32, "cifar"),
        (GPU, 48, 40, 40, "cifar"),
        (CPU, 4, 4, 8, "cifar"),
        (CPU, 300, 200, 64, "cifar"),
        (GPU, 300, 200, 224, "imagenet"),
    ],
)
def test_image_size_is_the_images_own_up_to_64(machine, width, height, size, stem):
    resolved = resolved_from(machine, report(width, height))
    assert (resolved.image_size, resolved.backbone.stem) == (size, stem)


def test_phases_are_half_and_three_quarters_first_on_a_cpu():
    assert [(phase.until, phase.image_size) for phase in resolved_from().phases] == [
        (0.5, 16),
        (0.8, 20),
        (0.95, 24),
        (1, 32),
    ]
    assert [(phase.until, phase.image_size) for phase in resolved_from(GPU).phases] == [(1, 32)]
    assert [(phase.until, phase.image_size) for phase in resolved_from(data=report(8, 8)).phases] == [(1, 8)]
    assert [phase.image_size for phase in resolved_from(data=report(16, 16)).phases] == [8, 12, 16]
    assert [phase.image_size for phase in resolved_from(data=report(12, 12)).phases] == [8, 12]
    vgg = resolved_from(backbone={"name": "torchvision_vgg11"})  # which takes 32 pixels, and no fewer
    assert [phase.image_size for phase in vgg.phases] == [32]


def test_what_a_method_wants_is_its_own():
    simclr, simsiam = resolved_from(GPU), resolved_from(GPU, method={"name": "simsiam"}, backbone={"width": 0.5})
    assert simclr.method.projector == (512, 128)
    assert (simclr.optimizer.lr, simclr.optimizer.decay_norm_and_bias) == (0.12, False)
    assert not simclr.backbone.zero_init_residual
    assert simsiam.method.projector == (1024, 1024)
    assert simsiam.method.predictor_hidden == 256
    assert simsiam.optimizer.decay_norm_and_bias
    assert simsiam.backbone.zero_init_residual
    assert resolved_from(GPU, method={"name": "vicreg"}).backbone.zero_init_residual
    assert not resolved_from(CPU, method={"name": "simsiam"}).backbone.zero_init_residual  # whose runs are short
    muon = resolved_from(method={"name": "simsiam"}, optimizer={"name": "muon"})
    assert not muon.optimizer.decay_norm_and_bias
    large = resolved_from(GPU, report(300, 300), method={"name": "simsiam"}, backbone={"name": "resnet50"})
    assert large.method.projector == (2048, 2048, 2048)


def test_what_is_given_stays():
    resolved = resolved_from(
        method={"name": "simsiam", "projector": [64, 32], "predictor_hidden": 5},
        optimizer={"name": "adamw", "lr": 0.5, "decay_norm_and_bias": False},
        schedule={"warmup_epochs": 3.0},
        evaluation={"every_epochs": 0},
        backbone={"name": "resnet18", "width": 0.25, "stem": "imagenet", "zero_init_residual": False},
        image_size=48,
        phases=[{"until": 1.0, "image_size": 40}],
        precision="bf16",
        epochs=9,
    )
    asked = resolved.model_dump(mode="json")
    assert asked["method"] == {**asked["method"], "projector": [64, 32], "predictor_hidden": 5}
    assert (resolved.optimizer.lr, resolved.optimizer.decay_norm_and_bias) == (0.5, False)
    assert (resolved.schedule.warmup_epochs, resolved.evaluation.every_epochs, resolved.epochs) == (3, 0, 9)
    assert (resolved.backbone.name, resolved.backbone.width, resolved.backbone.stem) == ("resnet18", 0.25, "imagenet")
    assert (resolved.image_size, len(resolved.phases), resolved.precision) == (48, 1, "bf16")


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars", "muon"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_rate_for_every_optimizer(name, method):
    assert resolved_from(method={"name": method}, optimizer={"name": name}).optimizer.lr > 0


def test_length_is_given_or_measured_or_a_hundred_epochs():
    assert resolved_from().epochs == 100
    asked = config.parse({"method": {"name": "simclr"}, "minutes": 3.0})
    without_length = resolve(asked, report(), CPU)
    assert (without_length.epochs, without_length.minutes) == (None, 3.0)
    resolved = with_length(without_length, Length(40))
    assert (resolved.epochs, resolved.minutes) == (40, None)
    assert (resolved.schedule.warmup_epochs, resolved.evaluation.every_epochs) == (2, 5)
    assert '"auto"' not in resolved.model_dump_json()


def test_the_network_of_the_starting_model_is_taken():
    card = {"backbone": {"name": "resnet34", "width": 0.25, "stem": "cifar_stride2"}}
    asked = config.parse({"method": {"name": "simclr"}})
    resolved = resolve(asked, report(), CPU, start=card)
    assert (resolved.backbone.name, resolved.backbone.width, resolved.backbone.stem) == (
        "resnet34",
        0.25,
        "cifar_stride2",
    )


def test_a_network_that_does_not_go_with_the_starting_model_is_told():
    card = {
        "backbone": {"name": "resnet50", "width": 1.0, "stem": "cifar", "selective_kernel": True, "layout": "google"}
    }
    asked = config.parse({"method": {"name": "simclr"}, "backbone": {"name": "resnet18"}})
    with pytest.raises(ConfigUnfit, match="model to start from: resnet18 has no bottleneck"):
        resolve(asked, report(), CPU, start=card)


def test_selective_kernels_choose_the_smallest_network_that_has_them_in_googles_layout():
    resolved = resolved_from(backbone={"selective_kernel": True, "width": 0.125})
    assert (resolved.backbone.name, resolved.backbone.layout) == ("resnet50", "google")
    assert resolved.backbone.zero_init_residual
    assert not resolved_from().backbone.selective_kernel
    assert resolved_from().backbone.layout == "torchvision"


def test_imagenet_weights_choose_a_network_that_has_them():
    resolved = resolved_from(backbone={"weights": "imagenet"})
    assert (resolved.backbone.name, resolved.backbone.width) == ("resnet18", 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_torchvisions_models_are_taken_as_they_are(method):
    asked = {"name": "torchvision_mobilenet_v3_small"}
    resolved = resolved_from(method={"name": method}, backbone=asked)
    assert resolved.backbone == config.Backbone(**asked, channels=3, **config.TORCHVISIONS_OWN)
    assert resolve(resolved, report(), CPU) == resolved
    card = {"backbone": asked | {"width": 0.5, "stem": "cifar"}}  # as they were once written
    begun = resolve(config.parse({"method": {"name": method}}), report(), CPU, start=card)
    assert begun.backbone == resolved.backbone


def test_models_made_for_one_size_get_it():
    resolved = resolved_from(backbone={"name": "torchvision_vit_b_16"})
    assert resolved.image_size == 224
    assert len(resolved.phases) == 1


@pytest.mark.parametrize(
    ("fields", "images", "words"),
    [
        ({"batch_size": 256}, 100, "batch_size is 256"),
        ({"subset": 500}, 300, "subset is 500"),
    ],
)
def test_what_cannot_be_run_is_said(fields, images, words):
    with pytest.raises(ConfigUnfit, match=words):
        resolved_from(data=report(images=images), **fields)


def test_evaluations_resolve_their_device_alone():
    resolved = resolve_device(config.parse({}, "knn_eval"), BF16)
    assert (resolved.device, resolved.precision) == ("cpu", "bf16")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigUnfit, match="no GPU"):
        Device.here("cuda")
    assert Device.here("auto").device == "cpu"


def test_torchvisions_regnets_whose_widths_are_computed_can_be_trained():
    resolved = resolved_from(backbone={"name": "torchvision_regnet_x_400mf"})
    assert resolved.method.projector == (400, 128)


def test_a_run_is_resolved_without_loading_torchs_compiler():
    code = (
        "import sys; from ssl_core import config\n"
        "from ssl_core.device import Device\n"
        "from ssl_core.training.resolve import resolve\n"
        "report = {'splits': {'train': {'images': 300}}, 'sizes': [{'width': 32, 'height': 32, 'images': 300}]}\n"
        "asked = config.parse({'method': {'name': 'simclr'}})\n"
        "resolved = resolve(asked, report, Device('cpu', gains_from_bf16=False))\n"
        "print(resolved.method.projector[0], 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["256", "False"]


@pytest.mark.parametrize("stem", ["cifar", "cifar_stride2", "imagenet"])
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_our_networks_take_the_smallest_images(name, stem):
    shape = {"name": name, "width": 0.125, "stem": stem, "zero_init_residual": False}
    network = backbones.build(config.Backbone(**shape, selective_kernel=False, layout="torchvision")).eval()
    assert network(torch.rand(2, 3, 4, 4)).shape == (2, network.dim)

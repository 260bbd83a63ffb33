"""Every method by name, and each one's own promises: what passes together, what gets no gradient."""

import pytest
import torch

from ssl_core import backbones, config, losses, method_config
from ssl_core.machine import Machine
from ssl_core.methods import METHODS
from ssl_core.resolve import resolve

SHAPE = config.Backbone(name="resnet10", width=0.125, stem="cifar", zero_init_residual=False)
REPORT = {"splits": {"train": {"images": 256}}, "sizes": [{"width": 16, "height": 16, "images": 256}]}


def build(name, **changes):
    """The method with its own defaults, but for the changes, on a small network."""
    torch.manual_seed(0)
    asked = config.Pretrain(method=method_config.METHODS[name](**changes), backbone=SHAPE, image_size=16)
    settled = resolve(asked, REPORT, Machine("cpu", gains_from_bf16=False))
    return METHODS[name](settled.method, backbones.build(SHAPE))


def views(n=4):
    return [torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


def test_methods_and_their_configs_have_the_same_names():
    assert METHODS.keys() == method_config.METHODS.keys()
    assert all(method_config.METHODS[name]().name == name for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_a_loss_with_a_gradient_for_every_parameter(name):
    method = build(name)
    output = method(views())
    assert output.loss.shape == ()
    assert not output.z.requires_grad
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_one_batch(name):
    method = build(name)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    seen = []
    for _ in range(15):
        output = method(views(16))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        seen.append(output.loss.item())
    assert seen[-1] < seen[0] - 0.1


def test_simclr_passes_both_views_as_one_batch():
    method, (a, b) = build("simclr"), views()
    seen = []
    method.backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))
    loss = method([a, b]).loss
    assert seen == [8]
    z1, z2 = build("simclr").projector(build("simclr").backbone(torch.cat([a, b]))).chunk(2)
    torch.testing.assert_close(loss, losses.nt_xent(z1, z2, temperature=0.2))


def test_simsiam_passes_each_view_by_itself():
    method = build("simsiam")
    seen = []
    method.backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))
    method(views())
    assert seen == [4, 4]


def test_simsiam_stops_the_gradient_at_z():
    method, reference = build("simsiam"), build("simsiam")
    method(views()).loss.backward()
    z1, z2 = (reference.projector(reference.backbone(view)) for view in views())
    p1, p2 = reference.predictor(z1), reference.predictor(z2)
    fixed1, fixed2 = z1.detach().clone(), z2.detach().clone()
    (losses.negative_cosine(p1, fixed2) / 2 + losses.negative_cosine(p2, fixed1) / 2).backward()
    for a, b in zip(method.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_simsiam_heads_are_the_papers():
    method = build("simsiam")
    kinds = [type(layer).__name__ for layer in method.projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert method.projector[-1].weight is None
    assert [type(layer).__name__ for layer in method.predictor] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert method.predictor[-1].bias is not None
    assert method.predictor[0].bias is None


def test_simsiam_can_put_relu_before_batch_norm():
    kinds = [type(layer).__name__ for layer in build("simsiam", projector_relu_first=True).projector]
    assert kinds == ["Linear", "ReLU", "BatchNorm1d", "Linear", "BatchNorm1d"]


def test_simsiams_predictor_keeps_its_rate_unless_told():
    assert build("simsiam").constant_lr()
    assert not build("simsiam", predictor_constant_lr=False).constant_lr()


def test_simclrs_head_has_batch_norm_after_every_layer_or_none():
    with_norm, without = build("simclr").projector, build("simclr", projector_batch_norm=False).projector
    assert [type(layer).__name__ for layer in with_norm] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert with_norm[-1].bias is None
    assert [type(layer).__name__ for layer in without] == ["Linear", "ReLU", "Linear"]
    assert all(layer.bias is not None for layer in (without[0], without[2]))

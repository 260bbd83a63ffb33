"""Self-supervised methods: loss, gradient, batch composition, heads, and target networks of each."""

import pytest
import torch

from ssl_core import config, methods
from ssl_core.config import methods as method_configs
from ssl_core.device import Device
from ssl_core.methods import METHODS, RunPosition, losses
from ssl_core.methods.simsiam import FastSiam, SimSiam
from ssl_core.methods.target import TargetMethod
from ssl_core.models import backbones, ema
from ssl_core.training.resolve import resolve

SHAPE = config.Backbone(name="resnet10", width=0.125, stem="cifar", zero_init_residual=False)
REPORT = {"splits": {"train": {"images": 256}}, "sizes": [{"width": 16, "height": 16, "images": 256}]}


def build(name, num_views=2, **changes):
    """The method with its default config, but for the changes, on a small network."""
    torch.manual_seed(0)
    method, views = method_configs.METHODS[name](**changes), config.Views(num_views=num_views)
    asked = config.Pretrain(method=method, backbone=SHAPE, image_size=16, views=views)
    return methods.build(resolve(asked, REPORT, Device("cpu", gains_from_bf16=False)))


def views(n=4):
    return [torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


def test_methods_and_their_configs_have_the_same_names():
    assert METHODS.keys() == method_configs.METHODS.keys()
    assert all(method_configs.METHODS[name]().name == name for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_a_loss_with_a_gradient_for_every_parameter(name):
    method = build(name)
    output = method(views())
    assert output.loss.shape == ()
    assert not output.z.requires_grad
    output.loss.backward()
    learned = [p for p in method.parameters() if p.requires_grad]
    assert learned
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_overfits_one_batch(name):
    method = build(name)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    seen = []
    for _ in range(15):
        if name == "moco_v2":  # else the images' keys of earlier steps would be negatives
            method.queue.copy_(build(name).queue)
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


def test_simsiam_passes_each_view_separately():
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


def test_simsiams_predictor_has_a_constant_learning_rate_by_default():
    assert build("simsiam").constant_lr()
    assert not build("simsiam", predictor_constant_lr=False).constant_lr()


def test_simclrs_projector_has_batch_norm_after_every_layer_or_none():
    with_norm, without = build("simclr").projector, build("simclr", projector_batch_norm=False).projector
    assert [type(layer).__name__ for layer in with_norm] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert with_norm[-1].bias is None
    assert [type(layer).__name__ for layer in without] == ["Linear", "ReLU", "Linear"]
    assert all(layer.bias is not None for layer in (without[0], without[2]))


def test_the_number_of_views_selects_simsiam_or_fastsiam():
    assert [type(build("simsiam", count)) for count in (2, 3)] == [SimSiam, FastSiam]


def test_fastsiam_of_two_views_equals_simsiam():
    settings = method_configs.SimSiam(projector=(32, 16), predictor_hidden=8)
    simsiam, fastsiam = (kind(settings, backbones.build(SHAPE)) for kind in (SimSiam, FastSiam))
    fastsiam.load_state_dict(simsiam.state_dict())
    for mine, reference in zip(fastsiam(views()), simsiam(views()), strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=0)


def test_fastsiam_predicts_the_mean_of_the_other_views():
    method, reference = build("simsiam", 3), build("simsiam", 3)
    three = [*views(), torch.rand(4, 3, 16, 16)]
    output = method(three)
    z = [reference.projector(reference.backbone(view)) for view in three]
    p = [reference.predictor(each) for each in z]
    pairs = [(p[0], (z[1] + z[2]) / 2), (p[1], (z[0] + z[2]) / 2), (p[2], (z[0] + z[1]) / 2)]
    expected = sum(losses.negative_cosine(a, b.detach()) for a, b in pairs) / 3
    torch.testing.assert_close(output.loss, expected)
    assert output.z.shape == (12, method.projector.widths[-1])


TARGETED = [name for name in METHODS if issubclass(METHODS[name], TargetMethod)]


@pytest.mark.parametrize("name", TARGETED)
def test_a_target_network_gets_no_gradient_and_is_updated_after_each_step(name):
    method = build(name)
    before = [p.clone() for p in method.target.parameters()]
    method(views()).loss.backward()
    assert all(p.grad is None for p in method.target.parameters())
    for p in method.backbone.parameters():
        p.data += 1
    method.after_step(RunPosition(step=0, total_steps=10, steps_per_epoch=5))
    for old, new in zip(before, method.target.parameters(), strict=True):
        assert new.sub(old).max() <= 0.011  # a hundredth of the way
    assert any(not torch.equal(old, new) for old, new in zip(before, method.target.parameters(), strict=True))


@pytest.mark.parametrize("name", TARGETED)
def test_a_target_network_is_initialised_from_the_loaded_weights(name):
    method = build(name)
    for p in method.backbone.parameters():
        p.data.fill_(0.5)
    method.on_weights_loaded()
    assert all(bool((p == 0.5).all()) for p in method.target[0].parameters())


def test_byols_loss_is_the_sum_of_squared_distances_to_the_other_views_target():
    method, reference, (a, b) = build("byol"), build("byol"), views()
    p1, p2 = (reference.predictor(reference.embed(view)) for view in (a, b))
    t1, t2 = (reference.target(view) for view in (a, b))
    distance = [
        (torch.nn.functional.normalize(p, dim=1) - torch.nn.functional.normalize(t, dim=1)).pow(2).sum(1).mean()
        for p, t in ((p1, t2), (p2, t1))
    ]
    torch.testing.assert_close(method([a, b]).loss, sum(distance))


def test_moco_v2s_queue_replaces_the_oldest_keys_by_the_newest():
    method = build("moco_v2", queue=6)
    first = method.queue.clone()
    keys = [torch.nn.functional.normalize(build("moco_v2", queue=6).target(views()[1]), dim=1)]
    method(views())
    torch.testing.assert_close(method.queue[:4], keys[0])
    assert torch.equal(method.queue[4:], first[4:])
    method(views())
    assert method.place == 2
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(6))
    assert not torch.equal(method.queue[4:], first[4:])
    method(views(9))  # more keys than the queue holds
    assert method.place == 2


def test_moco_v2s_loss_uses_the_queue_before_it_is_updated():
    method, reference, (a, b) = build("moco_v2", queue=16), build("moco_v2", queue=16), views()
    queue = reference.queue.clone()
    expected = losses.info_nce(reference.embed(a), reference.target(b), queue, temperature=0.2)
    torch.testing.assert_close(method([a, b]).loss, expected)


def test_moco_v3s_negatives_are_the_keys_of_the_batch_and_its_loss_is_scaled_by_twice_the_temperature():
    method, reference, (a, b) = build("moco_v3"), build("moco_v3"), views()
    q1, q2 = (reference.predictor(reference.embed(view)) for view in (a, b))
    k1, k2 = (reference.target(view) for view in (a, b))
    pairs = (losses.info_nce(q, k, k[:0], temperature=0.2) for q, k in ((q1, k2), (q2, k1)))
    torch.testing.assert_close(method([a, b]).loss, 0.4 * sum(pairs))


def test_dinos_teacher_sees_the_global_views_and_its_student_all_views():
    method, small = build("dino"), [torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)]
    seen = {"student": [], "teacher": []}
    method.backbone.register_forward_hook(lambda _, x, __: seen["student"].append(x[0].shape[-1]))
    method.target.register_forward_hook(lambda _, x, __: seen["teacher"].append(x[0].shape[-1]))
    output = method([*views(), *small])
    assert seen == {"student": [16, 16, 8, 8], "teacher": [16, 16]}
    assert output.z.shape == (8, 256)


def test_dino_updates_its_centre_freezes_its_prototypes_and_warms_up_the_teacher_temperature():
    method = build("dino", frozen_epochs=1.0, teacher_warmup=0.5)
    assert not method.centre.any()
    method(views()).loss.backward()
    assert method.centre.any()
    method.before_step(RunPosition(step=4, total_steps=40, steps_per_epoch=5))
    assert method.prototypes.weight.grad is None
    method(views()).loss.backward()
    method.before_step(RunPosition(step=5, total_steps=40, steps_per_epoch=5))
    assert method.prototypes.weight.grad is not None
    temperatures = []
    for step in (10, 20, 30):
        method.after_step(RunPosition(step, total_steps=40, steps_per_epoch=5))
        temperatures.append(method.teacher_temperature.item())
    assert temperatures == pytest.approx([0.055, 0.07, 0.07])


def test_momentum_rises_to_one_by_a_cosine():
    assert [ema.compute_momentum(0.99, share) for share in (0.0, 0.5, 1.0)] == pytest.approx([0.99, 0.995, 1.0])

"""Supervised classification: frozen modules keep their bytes, and all others are trained."""

import pytest
import torch

from ssl_core import config
from ssl_core.errors import ConfigUnfit
from ssl_core.methods.classification import Classification, list_frozen_modules
from ssl_core.models import backbones
from ssl_core.models.heads import MLP

STEM, STAGES = {"conv1", "bn1"}, ["layer1", "layer2", "layer3", "layer4"]
FROZEN = {-1: set(), 0: STEM} | {k: STEM | {*STAGES[:k]} for k in range(1, 5)}
blocks = pytest.mark.parametrize("block", FROZEN)


def network(block, head=True):
    torch.manual_seed(0)
    backbone = backbones.build(config.Backbone(name="resnet10", width=0.125, stem="cifar", zero_init_residual=False))
    lower = MLP((backbone.dim, 8, 4), last_norm="bn_no_bias").lower(1) if head else None
    return Classification(backbone, lower, 3, list_frozen_modules(backbone, block)).train()


def step(network):
    """One SGD step, large enough to change every trainable parameter."""
    generator = torch.Generator().manual_seed(1)
    view, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])
    network([view], labels).loss.backward()
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5).step()


def module_name(name):
    return name.split(".")[1] if name.startswith("backbone.") else name.split(".")[0]


@blocks
def test_exactly_the_modules_that_are_not_frozen_get_a_gradient(block):
    method = network(block)
    step(method)
    reached = {
        module_name(name) for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert reached == (STEM | {*STAGES} | {"head", "classifier"}) - FROZEN[block]


@blocks
def test_frozen_modules_keep_their_bytes_and_batch_norm_statistics(block):
    method = network(block)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    step(method)
    changed = {module_name(name) for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == (STEM | {*STAGES} | {"head", "classifier"}) - FROZEN[block]


def test_frozen_modules_run_in_eval_mode_and_the_head_in_training_mode():
    method = network(4).train()
    assert not any(module.training for module in method.backbone.modules())
    assert all(module.training for module in method.head.modules())
    assert network(2).backbone.layer3.training


def test_the_loss_is_the_cross_entropy_of_the_classifier_on_the_head():
    method = network(-1).eval()
    view, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 2])
    output = method([view], labels)
    h = method.head(method.backbone(view))
    chosen = method.classifier(h).double().softmax(1)[torch.arange(4), labels]
    assert output.loss.item() == pytest.approx(-chosen.log().mean().item())
    torch.testing.assert_close(output.z, h.detach())


def test_without_a_head_the_classifier_takes_the_backbone_features():
    method = network(-1, head=False)
    assert method.classifier.in_features == method.backbone.dim
    assert list(method.heads()) == ["classifier"]


def test_a_backbone_without_stages_is_frozen_entirely_or_not_at_all():
    backbone = backbones.build(config.Backbone(name="torchvision_shufflenet_v2_x0_5"))
    assert list_frozen_modules(backbone, -1) == []
    assert list_frozen_modules(backbone, 4) == [backbone]
    with pytest.raises(ConfigUnfit, match="fine_tune_after_block"):
        list_frozen_modules(backbone, 2)

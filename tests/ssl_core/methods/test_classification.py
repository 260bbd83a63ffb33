"""Classification: what is frozen stays as it is to the byte, and everything else learns."""

import pytest
import torch

from ssl_core import config
from ssl_core.errors import ConfigUnfit
from ssl_core.methods.classification import Classification, up_to_block
from ssl_core.models import backbones
from ssl_core.models.heads import MLP

STEM, GROUPS = {"conv1", "bn1"}, ["layer1", "layer2", "layer3", "layer4"]
FROZEN = {-1: set(), 0: STEM} | {k: STEM | {*GROUPS[:k]} for k in range(1, 5)}
blocks = pytest.mark.parametrize("block", FROZEN)


def network(block, head=True):
    torch.manual_seed(0)
    backbone = backbones.build(config.Backbone(name="resnet10", width=0.125, stem="cifar", zero_init_residual=False))
    lower = MLP((backbone.dim, 8, 4), last_norm="bn_no_bias").lower(1) if head else None
    return Classification(backbone, lower, 3, up_to_block(backbone, block)).train()


def step(network):
    """One step of gradient descent, far enough to move everything that may move."""
    generator = torch.Generator().manual_seed(1)
    view, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])
    network([view], labels).loss.backward()
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5).step()


def part(name):
    return name.split(".")[1] if name.startswith("backbone.") else name.split(".")[0]


@blocks
def test_gradient_reaches_exactly_what_is_not_frozen(block):
    learner = network(block)
    step(learner)
    reached = {part(name) for name, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == (STEM | {*GROUPS} | {"head", "classifier"}) - FROZEN[block]


@blocks
def test_what_is_frozen_stays_the_same_to_the_byte_batch_norms_statistics_included(block):
    learner = network(block)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    step(learner)
    changed = {part(name) for name, value in learner.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == (STEM | {*GROUPS} | {"head", "classifier"}) - FROZEN[block]


def test_what_is_frozen_runs_in_eval_mode_and_the_head_above_it_does_not():
    learner = network(4).train()
    assert not any(module.training for module in learner.backbone.modules())
    assert all(module.training for module in learner.head.modules())
    assert network(2).backbone.layer3.training


def test_the_loss_is_the_cross_entropy_of_the_classifier_on_the_head():
    learner = network(-1).eval()
    view, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 2])
    output = learner([view], labels)
    h = learner.head(learner.backbone(view))
    chosen = learner.classifier(h).double().softmax(1)[torch.arange(4), labels]
    assert output.loss.item() == pytest.approx(-chosen.log().mean().item())
    torch.testing.assert_close(output.z, h.detach())


def test_without_a_head_the_classifier_stands_on_the_features():
    learner = network(-1, head=False)
    assert learner.classifier.in_features == learner.backbone.dim
    assert list(learner.heads()) == ["classifier"]


def test_a_network_without_groups_of_blocks_is_frozen_whole_or_not_at_all():
    backbone = backbones.build(config.Backbone(name="torchvision_shufflenet_v2_x0_5"))
    assert up_to_block(backbone, -1) == []
    assert up_to_block(backbone, 4) == [backbone]
    with pytest.raises(ConfigUnfit, match="fine_tune_after_block"):
        up_to_block(backbone, 2)

"""Chunks: parts of a batch give the gradient of the whole, while only one part's activations are held."""

import copy

import pytest
import torch
from torch import nn

from ssl_core import config
from ssl_core.device import Device
from ssl_core.methods import METHODS
from ssl_core.models import grad_cache
from ssl_core.training.resolve import resolve
from tests.ssl_core.toys import build_method

REPORT = {"splits": {"train": {"images": 64}}, "sizes": [{"width": 16, "height": 16, "images": 64}]}


def build(name):
    shape = {"name": "resnet10", "width": 0.125, "stem": "cifar"}
    asked = config.parse({"method": {"name": name, "projector": [32, 16]}, "backbone": shape, "batch_size": 16})
    return build_method(resolve(asked, REPORT, Device("cpu", gains_from_bf16=False)), 0).double()


def views(n=12):
    return [
        torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (1, 2)
    ]


@pytest.mark.parametrize("name", METHODS)
def test_parts_give_the_gradient_of_the_whole_batch_where_no_batch_norm_mixes_images(name):
    whole = build(name)
    for module in whole.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # so that it looks at no batch
    parted = copy.deepcopy(whole)
    grad_cache.cache_gradients(parted.backbone, 5)
    losses = [method(views()).loss for method in (whole, parted)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    for a, b in zip(whole.parameters(), parted.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_batch_norm_counts_each_part_once():
    parted, by_hand = build("simclr"), build("simclr")
    grad_cache.cache_gradients(parted.backbone, 8)
    parted(views()).loss.backward()
    with torch.no_grad():
        for part in torch.cat(views()).split(8):
            by_hand.backbone(part)
    for a, b in zip(parted.backbone.buffers(), by_hand.backbone.buffers(), strict=True):
        torch.testing.assert_close(a.float(), b.float())


def held(method):
    """The bytes of activations that are kept for the gradient."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
        method(views(32))
    return sum(sizes)


def test_the_activations_of_the_whole_batch_are_not_held():
    parted = build("simclr")
    grad_cache.cache_gradients(parted.backbone, 4)
    assert held(parted) < held(build("simclr")) / 4


def test_a_smaller_batch_and_an_evaluation_pass_whole():
    method, seen = build("simclr"), []
    method.backbone.conv1.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    grad_cache.cache_gradients(method.backbone, 30)
    method(views())
    with torch.no_grad():
        method.backbone(torch.rand(50, 3, 16, 16, dtype=torch.float64))
    assert seen == [24, 50]

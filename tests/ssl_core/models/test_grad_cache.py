"""Gradient caching: chunks have the gradient of the whole batch, with the activations of one chunk in memory."""

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
def test_chunks_have_the_gradient_of_the_whole_batch_without_batch_norm_in_training(name):
    whole = build(name)
    for module in whole.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # no batch statistics
    chunked = copy.deepcopy(whole)
    grad_cache.cache_gradients(chunked.backbone, 5)
    losses = [method(views()).loss for method in (whole, chunked)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    for a, b in zip(whole.parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("synchronised", [False, True])
def test_running_statistics_are_updated_once_per_chunk(synchronised):
    chunked, by_hand = build("simclr"), build("simclr")
    if synchronised:  # as on several GPUs
        chunked = nn.SyncBatchNorm.convert_sync_batchnorm(chunked)
    grad_cache.cache_gradients(chunked.backbone, 8)
    chunked(views()).loss.backward()
    with torch.no_grad():
        for chunk in torch.cat(views()).split(8):
            by_hand.backbone(chunk)
    for a, b in zip(chunked.backbone.buffers(), by_hand.backbone.buffers(), strict=True):
        torch.testing.assert_close(a.float(), b.float())


def count_saved_bytes(method):
    """The bytes of activations saved for the backward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
        method(views(32))
    return sum(sizes)


def test_the_activations_of_the_whole_batch_are_not_saved():
    chunked = build("simclr")
    grad_cache.cache_gradients(chunked.backbone, 4)
    assert count_saved_bytes(chunked) < count_saved_bytes(build("simclr")) / 4


def test_a_smaller_batch_and_an_evaluation_are_not_chunked():
    method, seen = build("simclr"), []
    method.backbone.conv1.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    grad_cache.cache_gradients(method.backbone, 30)
    method(views())
    with torch.no_grad():
        method.backbone(torch.rand(50, 3, 16, 16, dtype=torch.float64))
    assert seen == [24, 50]

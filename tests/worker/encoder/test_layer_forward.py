"""A forward pass on a device with too little memory for its batch, and the precision of forward passes."""

import weakref
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from service.errors import EncoderFailed
from ssl_core.data.decode import BadImage
from ssl_core.device import Device
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.resnet import ResNet
from ssl_core.serialization import saved_model
from tests.worker.encoder import models, pictures
from worker.encoder.batcher import _compute
from worker.encoder.decoder import _prepare
from worker.encoder.embedder import LayerForward, choose_precision


class SmallDevice:
    """Stands for a model on a GPU whose memory holds `room` images."""

    def __init__(self, room: int, sentence: str = "CUDA out of memory. Tried to allocate 2.00 GiB.") -> None:
        self.room, self.sentence = room, sentence
        self.batches: list[int] = []

    def encode(self, batch: np.ndarray, layer: str) -> torch.Tensor:
        self.batches.append(len(batch))
        if len(batch) > self.room:
            raise torch.OutOfMemoryError(self.sentence)
        return torch.from_numpy(batch).flatten(1).float()


@pytest.mark.parametrize(("room", "batches"), [(7, [7]), (4, [7, 3, 4]), (2, [7, 3, 1, 2, 4, 2, 2])])
def test_a_batch_that_does_not_fit_is_computed_in_halves(room: int, batches: list[int]) -> None:
    images, device = np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3), SmallDevice(room)
    np.testing.assert_array_equal(LayerForward(device, "backbone")(images), images.reshape(7, 12))
    assert device.batches == batches


def test_an_image_that_does_not_fit_is_refused_for_now() -> None:
    with pytest.raises(EncoderFailed, match="not enough memory") as refused:
        LayerForward(SmallDevice(0), "backbone")(np.zeros((2, 2, 2, 3), np.uint8))
    assert refused.value.retry_after == 10


def test_another_error_is_not_retried() -> None:
    device = SmallDevice(0, "CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        LayerForward(device, "backbone")(np.zeros((2, 2, 2, 3), np.uint8))
    assert device.batches == [2]


def test_the_memory_of_a_failed_batch_is_free_before_its_halves_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.make(tmp_path)
    encoder = saved_model.load(tmp_path, precision="bf16")
    features: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []

    def fail_if_large(_: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        features.extend((weakref.ref(inputs[0]), weakref.ref(output)))
        if len(output) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def empty_cache() -> None:
        left.append(sum(reference() is not None for reference in features))

    encoder.backbone.body.layer1.register_forward_hook(fail_if_large)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    images = np.random.default_rng(0).integers(0, 256, (4, models.IMAGE_SIZE, models.IMAGE_SIZE, 3), dtype=np.uint8)
    assert len(LayerForward(encoder, "backbone")(images)) == 4
    assert left == [0]
    assert len(features) == 6


@pytest.mark.parametrize(
    ("asked", "device", "gains", "chosen"),
    [
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda", False, "fp32"),
        ("auto", "cpu", True, "fp32"),
        ("auto", "cpu", False, "fp32"),
        ("fp32", "cuda", True, "fp32"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_only_a_gpu_computes_in_bf16_unasked(
    asked: Literal["auto", "fp32", "bf16"], device: Literal["cpu", "cuda"], gains: bool, chosen: str
) -> None:
    assert choose_precision(asked, Device(device, gains_from_bf16=gains)) == chosen


@pytest.mark.parametrize("channels", [1, 5])
def test_a_batch_of_other_channels_is_padded_and_encoded(channels: int) -> None:
    backbone = ResNet("resnet10", width=0.125, stem="cifar", channels=channels)
    encoder = Encoder(backbone, None, Preprocessing.of(16, [0.5] * channels, [0.25] * channels))
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, channels), dtype=np.uint8)
    features = _compute(LayerForward(encoder, "backbone"), list(images), 4)
    assert features.shape == (4, 64)
    np.testing.assert_allclose(features[:3], encoder.encode(images).numpy(), rtol=1e-5, atol=1e-6)


def test_an_image_of_other_channels_than_the_models_is_refused() -> None:
    backbone = ResNet("resnet10", width=0.125, stem="cifar", channels=5)
    encoder = Encoder(backbone, None, Preprocessing.of(16, [0.5] * 5, [0.25] * 5))
    with pytest.raises(BadImage, match="Images of 5 channels are taken here; this has 3") as caught:
        _prepare(encoder, pictures.png(0), 10_000)
    assert caught.value.code == "channels_differ"

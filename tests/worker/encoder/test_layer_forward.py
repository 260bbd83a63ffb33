"""A forward pass on a device with too little memory for its batch."""

import numpy as np
import pytest
import torch

from service.errors import EncoderFailed
from worker.encoder.embedder import LayerForward


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

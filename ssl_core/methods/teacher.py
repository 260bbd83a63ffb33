"""The teacher of a distillation: a frozen classifier that gives logits of the student's views."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.device import autocast, memory_format
from ssl_core.models.encoder import ChannelStatistics, Encoder, Preprocessing
from ssl_core.serialization import saved_model


@dataclass(frozen=True)
class Teacher:
    """Not part of the student's state dict: a resumed run loads the same model again."""

    encoder: Encoder
    statistics: ChannelStatistics  # of the encoder, and of the student, on the device
    student_statistics: ChannelStatistics

    @classmethod
    def load(cls, model: Path, student_preprocessing: Preprocessing, device: str, precision: str) -> "Teacher":
        """Load the teacher from a saved model. Raises BadModel."""
        return cls.of(saved_model.load(model, device, precision=precision), student_preprocessing, torch.device(device))

    @classmethod
    def of(cls, encoder: Encoder, student_preprocessing: Preprocessing, device: torch.device) -> "Teacher":
        """Return the teacher whose encoder is on the device."""
        return cls(encoder, encoder.preprocessing.statistics(device), student_preprocessing.statistics(device))

    @torch.no_grad()
    def __call__(self, view: Tensor) -> Tensor:
        """Return the logits N×classes of a student's view N×C×S×S, at the teacher's image size and normalisation."""
        side = self.encoder.image_size
        pixels = self.student_statistics.denormalise(view.float())
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True, align_corners=False)
        layout = memory_format(view.device, self.encoder.precision)
        images = self.statistics.normalise_(pixels).contiguous(memory_format=layout)
        with autocast(view.device, self.encoder.precision):
            return self.encoder(images, "logits").float()

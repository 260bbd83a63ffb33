"""Saved models for tests: small networks with random weights."""

from pathlib import Path

import torch

from ssl_core import config
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.serialization import saved_model
from tests.ssl_core.toys import build_method

IMAGE_SIZE = 32


def make(folder: Path, *, seed: int = 0, backbone: str = "resnet10", width: float = 0.25) -> dict:
    """Write a random model and return its card. Its batch-norm statistics are not the initial ones."""
    resolved = config.parse(
        {
            "kind": "pretrain",
            "method": {"name": "simclr", "projector": [64, 32]},
            "backbone": {"name": backbone, "width": width, "stem": "cifar_stride2", "zero_init_residual": False},
        }
    )
    method = build_method(resolved, seed)
    method.train()
    with torch.no_grad():
        images = torch.randn(16, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed))
        for _ in range(20):
            method.projector(method.backbone(images))
    preprocessing = Preprocessing.of(IMAGE_SIZE, [0.5, 0.45, 0.4], [0.25, 0.24, 0.26])
    encoder = Encoder(method.backbone, method.projector, preprocessing)
    return saved_model.save(folder, encoder, resolved.backbone, method.heads(), {"method": "simclr"})[1]

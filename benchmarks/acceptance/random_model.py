"""A saved model with random weights, for what takes the same time whatever the weights are."""

from pathlib import Path

import torch

from benchmarks.acceptance.setup import Setup
from ssl_core import config as configs
from ssl_core import methods
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.serialization import saved_model


def save_random_model(setup: Setup, folder: Path) -> Path:
    """Write the model of the setup's network and return its folder."""
    backbone = {"stem": "cifar", "zero_init_residual": False} | setup.backbone
    asked = configs.parse({"kind": "pretrain", "method": {"name": "simclr", "projector": [128]}, "backbone": backbone})
    torch.manual_seed(0)
    method = methods.build(asked)
    preprocessing = Preprocessing.of(16 if setup.tiny else 32, [0.5] * 3, [0.25] * 3)
    encoder = Encoder(method.backbone, method.projector, preprocessing)
    saved_model.save(folder, encoder, asked.backbone, method.heads(), {})
    return folder

"""Recipes: complete configs that can be submitted as they stand, each with where it comes from and what it should give.

Plain data and pydantic alone, like `ssl_core.config`, so that the API can show them. A recipe holds only what the
config classes express exactly.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """A config with its provenance; `kind` is a key of `ssl_core.config.KINDS`."""

    name: str
    kind: str
    description: str
    source: str
    hardware: str
    duration: str
    result: str
    config: dict[str, Any]


_CPU_PHASES = [{"until": 0.4, "image_size": 16}, {"until": 0.8, "image_size": 24}, {"until": 1.0, "image_size": 32}]
_CPU_NETWORK = {"name": "resnet10", "width": 0.5, "stem": "cifar"}
_SMALL_PHOTOS = {"crop_area": [0.2, 1.0], "jitter_strength": 0.5, "grey": 0.2, "blur": 0.0}

_DIGITS_NETWORK = {"name": "resnet10", "width": 0.25, "stem": "cifar"}
_DIGITS_VIEWS = {
    "crop_area": None,
    "flip": 0.0,
    "jitter": 0.0,
    "grey": 0.0,
    "rotation": 12.0,
    "shear": 0.2,
    "scale": [0.6, 1.1],
    "translation": 0.1,
    "gamma": 0.3,
    "noise": 0.05,
}
_DIGITS = {
    "backbone": _DIGITS_NETWORK,
    "image_size": 8,
    "phases": [{"until": 1.0, "image_size": 8}],
    "views": _DIGITS_VIEWS,
    "minutes": 0.5,
    "batch_size": 256,
    "evaluation": {"knn_k": 10},
}

RECIPES: dict[str, Recipe] = {
    "simclr-cpu": Recipe(
        name="simclr-cpu",
        kind="pretrain",
        description="The default on a CPU: SimCLR on small photographs (CIFAR-10 and the like), small crops first.",
        source="SimCLR (arXiv:2002.05709) with temperature 0.2, on ResNet-10 of half width",
        hardware="two CPU cores with AMX",
        duration="10 minutes",
        result="CIFAR-10, 10,000 training images (subset 10000): about 57 % kNN and 65 % linear; raw pixels 35 and 38",
        config={
            "method": {"name": "simclr", "temperature": 0.2, "projector": [256, 128]},
            "backbone": _CPU_NETWORK,
            "image_size": 32,
            "phases": _CPU_PHASES,
            "views": _SMALL_PHOTOS,
            "minutes": 10.0,
            "batch_size": 256,
            "optimizer": {"name": "sgd", "lr": 0.12, "weight_decay": 5e-4, "momentum": 0.9, "nesterov": True},
            "schedule": {"lr_scaling": "linear", "warmup_epochs": "auto", "decay": "cosine"},
        },
    ),
    "simsiam-cpu": Recipe(
        name="simsiam-cpu",
        kind="pretrain",
        description="SimSiam on a CPU: no negatives, two passes a step, otherwise as simclr-cpu.",
        source="SimSiam (arXiv:2011.10566), CIFAR settings (appendix D), on ResNet-10 of half width",
        hardware="two CPU cores with AMX",
        duration="10 minutes",
        result="no collapse (feature std near 1/√d); it learns more slowly than simclr-cpu in so short a run",
        config={
            "method": {"name": "simsiam"},
            "backbone": _CPU_NETWORK,
            "image_size": 32,
            "phases": _CPU_PHASES,
            "views": _SMALL_PHOTOS,
            "minutes": 10.0,
            "batch_size": 256,
            "optimizer": {"name": "sgd", "weight_decay": 5e-4, "momentum": 0.9, "nesterov": False},
            "schedule": {"lr_scaling": "linear", "warmup_epochs": "auto", "decay": "cosine"},
        },
    ),
    "simclr-digits": Recipe(
        name="simclr-digits",
        kind="pretrain",
        description="SimCLR on 8×8 grey digits: views that a written digit survives, so no flip, crop or colour.",
        source="scikit-learn's digits; views chosen for them",
        hardware="two CPU cores",
        duration="30 seconds",
        result="linear with 10 labels about 80 % (raw pixels 55 %), kNN with k 10 about 99 %",
        config={"method": {"name": "simclr", "temperature": 0.2}, **_DIGITS},
    ),
    "simsiam-digits": Recipe(
        name="simsiam-digits",
        kind="pretrain",
        description="SimSiam on 8×8 grey digits, with the views of simclr-digits.",
        source="scikit-learn's digits; views chosen for them",
        hardware="two CPU cores",
        duration="30 seconds",
        result="no collapse; above raw pixels with few labels",
        config={"method": {"name": "simsiam"}, **_DIGITS},
    ),
    "simclr-cifar10": Recipe(
        name="simclr-cifar10",
        kind="pretrain",
        description="SimCLR on CIFAR-10 as its authors ran it.",
        source="google-research/simclr, README: CIFAR-10 pretraining",
        hardware="one GPU",
        duration="1000 epochs",
        result="about 91 % linear (Nesterov SGD 0.1·batch/256, 100 epochs, no weight decay)",
        config={
            "method": {
                "name": "simclr",
                "temperature": 0.5,
                "projector": [512, 512, 128],
                "projector_batch_norm": True,
            },
            "backbone": {"name": "resnet18", "width": 1.0, "stem": "cifar"},
            "image_size": 32,
            "phases": [{"until": 1.0, "image_size": 32}],
            "views": {"crop_area": [0.08, 1.0], "flip": 0.5, "jitter": 0.8, "jitter_strength": 0.5, "grey": 0.2},
            "epochs": 1000,
            "batch_size": 512,
            "optimizer": {
                "name": "lars",
                "lr": 1.0,
                "weight_decay": 1e-4,
                "decay_norm_and_bias": False,
                "momentum": 0.9,
                "trust": 0.001,
                "classic_momentum": True,
                "nesterov": False,
            },
            "schedule": {"lr_scaling": "linear", "warmup_epochs": 10.0, "decay": "cosine"},
        },
    ),
}

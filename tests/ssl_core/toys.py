"""Toys: recipes so small that each runs in a second or two: fewer, smaller, from random weights and by all labels."""

from typing import Any

import torch

from ssl_core import methods

SIDE = 32
_SIZES = {"queue": 40, "prototypes": 32, "predictor_hidden": 16}


def shrunk(recipe) -> dict[str, Any]:
    """The recipe's config with a small network, few and small images, narrow heads and one epoch."""
    config = {key: value for key, value in recipe.config.items() if key not in ("minutes", "epochs", "subset")}
    small = {"epochs": 1, "batch_size": 16, "image_size": SIDE, "device": "cpu", "pictures": False}
    config |= small | {"phases": [{"until": 1.0, "image_size": SIDE}]}
    if recipe.kind == "finetune":
        return {key: value for key, value in config.items() if key != "image_size"} | {"label_fraction": 1.0}
    config["backbone"] = config.get("backbone", {}) | {"width": 0.125, "weights": "random"}
    if "method" in config:
        config["method"] = _narrow(config["method"])
    return config


def _narrow(method: dict[str, Any]) -> dict[str, Any]:
    narrow = {name: min(value, _SIZES[name]) for name, value in method.items() if name in _SIZES}
    widths = method.get("projector")
    return method | narrow | ({"projector": [16] * len(widths)} if widths else {})


def shrunk_evaluation(recipe) -> dict[str, Any]:
    """The recipe's `linear_eval` on the processor, of one epoch and by enough labels for two classes."""
    fractions = [max(0.5, fraction) for fraction in recipe.evaluation.get("label_fractions", [1.0])]
    return recipe.evaluation | {"epochs": 1, "batch_size": 16, "device": "cpu", "label_fractions": fractions}


def build_method(resolved, seed=0):
    """The method of a resolved config with the random weights of a seed."""
    torch.manual_seed(seed)
    return methods.build(resolved)

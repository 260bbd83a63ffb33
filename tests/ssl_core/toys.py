"""Toy configs: recipes shrunk to run in a second or two, from random weights and with all labels."""

from typing import Any

import torch

from ssl_core import methods

SIDE = 32
_SIZES = {"queue": 40, "prototypes": 32, "predictor_hidden": 16}


def shrink_config(recipe) -> dict[str, Any]:
    """Return the recipe's config with a small network, few and small images, narrow heads and one epoch."""
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


def shrink_evaluation(recipe) -> dict[str, Any]:
    """Return the recipe's `linear_eval` on the CPU, for one epoch and with enough labels for two classes."""
    fractions = [max(0.5, fraction) for fraction in recipe.evaluation.get("label_fractions", [1.0])]
    return recipe.evaluation | {"epochs": 1, "batch_size": 16, "device": "cpu", "label_fractions": fractions}


def build_method(resolved, seed=0):
    """Return the method of a resolved config with the random weights of a seed."""
    torch.manual_seed(seed)
    return methods.build(resolved)

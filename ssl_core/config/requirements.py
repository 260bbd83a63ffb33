"""Requirements: what a run asks of its dataset and its model, and the sentences for what they lack.

The API checks them before a job is queued; the core checks them again when it reads the data and the model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl_core.config.views import RGB


@dataclass(frozen=True)
class Requirements:
    """What a config says about the dataset and the model that it can be run with."""

    subset: int | None = None  # training images, at least
    images: int = 0  # training images, at least
    batch_size: int | None = None  # training images of one whole batch
    labels: str | None = None  # JSON pointer of what needs two labelled classes: "/dataset" or a field of the config
    label_rows: tuple[int, ...] = ()  # rows of the dataset
    split: str | None = None  # a split that must have images
    splits: tuple[str, ...] = ()  # splits that must have images
    rows_per_shard: int | None = None  # images of one shard of those of `splits`, or of all without
    layer: str | None = None  # of the model
    classifier: bool = False  # the model must have one
    head_layers: int = 0  # of the model's head, at least
    backbone: Mapping[str, Any] = field(default_factory=dict)  # fields that must equal the model's, or be "auto"
    # JSON pointers of the fields that need images of a certain number of channels, and that number
    channels: Mapping[str, int] = field(default_factory=dict)


def subset_too_large(subset: int, images: int) -> str:
    return f"subset is {subset}, but there are {images} training images."


def batch_too_large(batch_size: int, images: int) -> str:
    return f"batch_size is {batch_size}, but there are {images} training images."


def too_few_images(needed: int, images: int) -> str:
    found = "There is 1 training image" if images == 1 else f"There are {images} training images"
    return f"{found}; the run needs at least {needed}" + (", one for each of its devices." if needed > 2 else ".")


def no_such_layer(layer: str, layers: Iterable[str]) -> str:
    return f"The model has no layer {layer}; it has {', '.join(layers)}."


def head_too_short(selector: int, layers: int) -> str:
    return f"ft_proj_selector is {selector}; the model's head has {layers} layers."


def no_classifier() -> str:
    return "The model has no classifier; name one trained by finetune or supervised."


def split_empty(split: str) -> str:
    return f"The dataset has no images in its {split} split."


def too_many_shards(rows_per_shard: int, images: int, most: int) -> str:
    needed = -(-images // most)
    return f"rows_per_shard is {rows_per_shard}, but {images} images in at most {most} shards need {needed}."


def channels_differ(pointer: str, needed: int, channels: int) -> str:
    """Return the sentence for a field of `Requirements.channels`; channels: of the dataset's images."""
    name = pointer.removeprefix("/config/").replace("/", ".")
    return f"{name} needs images of {needed} channel{'s' * (needed != 1)}; those of the dataset have {channels}."


def model_channels_differ(needed: int, channels: int) -> str:
    return f"The model takes images of {needed} channel{'s' * (needed != 1)}; those of the dataset have {channels}."


def count_channels(statistics: Mapping[str, Any]) -> int:
    """Return the channels of a dataset's report or of a card's preprocessing: as many as it has means; 3 without."""
    return len(statistics.get("mean", ())) or RGB


def knn_needs_labels() -> str:
    return "early_stop on knn needs labelled training images of at least two classes; rankme needs none."

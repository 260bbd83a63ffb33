"""Compatibility checks of a job's config with its dataset and its model, by their database rows."""

from collections.abc import Mapping
from typing import Any

from service.db.models import Dataset
from service.errors import BatchTooLarge, InvalidConfig, LabelsNeeded, TooFewImages
from ssl_core.config import RunConfig, requirements
from ssl_core.config.embedding import MAX_SHARDS, count_images
from ssl_core.config.requirements import Requirements
from ssl_core.errors import Fault


def check_dataset(dataset: Dataset, config: RunConfig) -> None:
    """Raise when the dataset does not meet the config's requirements.

    Raises InvalidConfig, BatchTooLarge, TooFewImages, LabelsNeeded.
    """
    needed = config.requirements
    splits: dict[str, Any] = (dataset.report or {}).get("splits", {})
    train: dict[str, Any] = splits.get("train", {})
    _check_split(splits, needed)
    _check_splits(splits, needed)
    _check_images(train, needed)
    _check_channels(dataset, needed)
    if needed.labels is not None and not _has_classes(train):
        detail = requirements.knn_needs_labels()
        if needed.labels == "/dataset":
            detail = f"A job of the kind {config.kind} needs labelled training images of at least two classes."
        raise LabelsNeeded(detail, errors=[Fault(pointer=needed.labels, code="labels_needed", detail=detail)])
    _check_rows(splits, needed)


def check_model(card: Mapping[str, Any], config: RunConfig, dataset: Dataset) -> None:
    """Raise InvalidConfig when the model lacks what the config requires, has another backbone, or takes other images
    than the dataset's.
    """
    needed = config.requirements
    own, channels = requirements.count_channels(card.get("preprocessing", {})), _count_channels(dataset)
    if own != channels:
        raise _invalid("/model", "channels_differ", requirements.model_channels_differ(own, channels))
    layers = card.get("layers", {needed.layer: 0})
    if needed.layer is not None and needed.layer not in layers:
        raise _invalid("/config/layer", "layer_not_found", requirements.no_such_layer(needed.layer, sorted(layers)))
    if needed.classifier and not card.get("classifier"):
        raise _invalid("/model", "no_classifier", requirements.no_classifier())
    depth = _get_head_depth(card, needed.head_layers)
    if needed.head_layers > depth:
        detail = requirements.head_too_short(needed.head_layers, depth)
        raise _invalid("/config/ft_proj_selector", "layer_not_found", detail)
    for name, actual in card.get("backbone", {}).items():
        requested = needed.backbone.get(name, "auto")
        if requested not in ("auto", actual):
            detail = f"The model's backbone has {name} {actual}, not {requested}."
            raise _invalid(f"/config/backbone/{name}", "another_network", detail)


def _check_split(splits: Mapping[str, Any], needed: Requirements) -> None:
    if needed.split is not None and not splits.get(needed.split, {}).get("images"):
        raise _invalid("/config/split", "split_empty", requirements.split_empty(needed.split))


def _check_splits(splits: Mapping[str, Any], needed: Requirements) -> None:
    for place, split in enumerate(needed.splits):
        if not splits.get(split, {}).get("images"):
            raise _invalid(f"/config/splits/{place}", "split_empty", requirements.split_empty(split))
    images, size = count_images(splits, needed.splits), needed.rows_per_shard
    if size is not None and images > size * MAX_SHARDS:
        detail = requirements.too_many_shards(size, images, MAX_SHARDS)
        raise _invalid("/config/rows_per_shard", "too_many_shards", detail)


def _check_images(train: Mapping[str, Any], needed: Requirements) -> None:
    images = int(train.get("images", 0))
    if needed.subset is not None and needed.subset > images:
        raise _invalid("/config/subset", "subset_too_large", requirements.subset_too_large(needed.subset, images))
    used = needed.subset or images
    if needed.images > used:
        detail = requirements.too_few_images(needed.images, used)
        pointer = "/config/devices" if needed.images > 2 else "/dataset"
        raise TooFewImages(detail, errors=[Fault(pointer=pointer, code="too_few_images", detail=detail)])
    if needed.batch_size is not None and needed.batch_size > used:
        detail = requirements.batch_too_large(needed.batch_size, used)
        raise BatchTooLarge(detail, errors=[Fault(pointer="/config/batch_size", code="too_large", detail=detail)])


def _check_channels(dataset: Dataset, needed: Requirements) -> None:
    channels = _count_channels(dataset)
    for pointer, number in needed.channels.items():
        if number != channels:
            raise _invalid(pointer, "channels_differ", requirements.channels_differ(pointer, number, channels))


def _count_channels(dataset: Dataset) -> int:
    return requirements.count_channels(dataset.report or {})


def _check_rows(splits: Mapping[str, Any], needed: Requirements) -> None:
    """Raise when a row is out of range; whether it is a labelled training image is checked by the run."""
    images = sum(split.get("images", 0) for split in splits.values())
    invalid = next((place for place, row in enumerate(needed.label_rows) if row >= images), None)
    if invalid is not None:
        detail = (
            f"label_rows contains {needed.label_rows[invalid]}, but the dataset has {images} images, numbered from 0."
        )
        raise _invalid(f"/config/label_rows/{invalid}", "row_not_found", detail)


def _has_classes(split: Mapping[str, Any]) -> bool:
    """Whether the split has labelled images of at least two classes."""
    return len([count for count in split.get("per_class", []) if count]) >= 2


def _get_head_depth(card: Mapping[str, Any], default: int) -> int:
    """Return the number of layers of the model's head, or `default` when the card does not describe it."""
    return len((card["projector"] or {"widths": [0]})["widths"]) - 1 if "projector" in card else default


def _invalid(pointer: str, code: str, detail: str) -> InvalidConfig:
    return InvalidConfig(detail, errors=[Fault(pointer=pointer, code=code, detail=detail)])

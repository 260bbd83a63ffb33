"""Whether a job's config goes with its dataset and its model, as far as rows in the database can tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.db.models import Dataset
from service.errors import BatchTooLarge, Fault, InvalidConfig, LabelsNeeded
from ssl_core.config import Distill, Export, Finetune, Labelled, LinearEval, Pretrain, Project, RunConfig, TrainingRun


def check_dataset(dataset: Dataset, config: RunConfig) -> None:
    """Raise when the config asks for more than the dataset has."""
    if isinstance(config, Export):
        return None  # it takes what images there are
    if isinstance(config, Project):
        return _check_split(dataset, config)
    train = _train_split(dataset)
    images = int(train.get("images", 0))
    if config.subset is not None and config.subset > images:
        detail = f"subset is {config.subset}, but the training split has {images} images."
        raise InvalidConfig(detail, errors=[Fault(pointer="/config/subset", code="subset_too_large", detail=detail)])
    if isinstance(config, Pretrain):
        there = config.subset or images
        if config.batch_size > there:
            detail = f"batch_size is {config.batch_size}, but there are {there} training images."
            raise BatchTooLarge(detail, errors=[Fault(pointer="/config/batch_size", code="too_large", detail=detail)])
        if config.early_stop is not None and config.early_stop.metric == "knn" and not _has_classes(train):
            detail = "early_stop on knn needs labelled training images of at least two classes; rankme needs none."
            fault = Fault(pointer="/config/early_stop/metric", code="labels_needed", detail=detail)
            raise LabelsNeeded(detail, errors=[fault])
        return None
    if _needs_labels(config) and not _has_classes(train):
        detail = f"A job of the kind {config.kind} needs labelled training images of at least two classes."
        raise LabelsNeeded(detail, errors=[Fault(pointer="/dataset", code="labels_needed", detail=detail)])
    return _check_rows(dataset, config.label_rows) if isinstance(config, Labelled | LinearEval) else None


def check_model(card: Mapping[str, Any], config: RunConfig) -> None:
    """Raise when the config asks for what the model lacks, or would train it as another network."""
    if not isinstance(config, TrainingRun):
        return _check_layer(card, config.layer)
    if isinstance(config, Distill):
        return _check_teacher(card)
    if isinstance(config, Finetune):
        _check_head(card, config.ft_proj_selector)
    return _check_network(card, config)


def _has_classes(split: Mapping[str, Any]) -> bool:
    """Whether it has labelled images of two classes."""
    return len([count for count in split.get("per_class", []) if count]) >= 2


def _check_rows(dataset: Dataset, rows: Sequence[int] | None) -> None:
    """Raise when a row is beyond the dataset; whether it is of a labelled training image shows in the run."""
    rows = rows or ()
    images = sum(split.get("images", 0) for split in (dataset.report or {}).get("splits", {}).values())
    beyond = next((place for place, row in enumerate(rows) if row >= images), None)
    if beyond is not None:
        detail = f"label_rows holds {rows[beyond]}, but the dataset has {images} images, numbered from 0."
        fault = Fault(pointer=f"/config/label_rows/{beyond}", code="row_not_found", detail=detail)
        raise InvalidConfig(detail, errors=[fault])


def _check_split(dataset: Dataset, config: Project) -> None:
    """Raise when the split that is to be drawn has no images."""
    splits = (dataset.report or {}).get("splits", {})
    if config.split != "auto" and not splits.get(config.split, {}).get("images"):
        detail = f"The dataset has no images in its {config.split} split."
        raise InvalidConfig(detail, errors=[Fault(pointer="/config/split", code="split_empty", detail=detail)])


def _needs_labels(config: RunConfig) -> bool:
    return not isinstance(config, Distill) or config.label_weight > 0


def _check_layer(card: Mapping[str, Any], layer: str) -> None:
    layers = card.get("layers", {layer: 0})
    if layer not in layers:
        detail = f"The model has no layer {layer}; it has {', '.join(sorted(layers))}."
        raise InvalidConfig(detail, errors=[Fault(pointer="/config/layer", code="layer_not_found", detail=detail)])


def _check_teacher(card: Mapping[str, Any]) -> None:
    if not card.get("classifier"):
        detail = "The model has no classifier to teach with; name one that finetune or supervised made."
        raise InvalidConfig(detail, errors=[Fault(pointer="/model", code="no_classifier", detail=detail)])


def _check_head(card: Mapping[str, Any], selector: int) -> None:
    layers = len((card["projector"] or {"widths": [0]})["widths"]) - 1 if "projector" in card else selector
    if selector > layers:
        detail = f"ft_proj_selector is {selector}; the model's head has {layers} layers."
        fault = Fault(pointer="/config/ft_proj_selector", code="layer_not_found", detail=detail)
        raise InvalidConfig(detail, errors=[fault])


def _check_network(card: Mapping[str, Any], config: TrainingRun) -> None:
    for name, theirs in card.get("backbone", {}).items():
        ours = getattr(config.backbone, name, "auto")
        if ours not in ("auto", theirs):
            detail = f"The model's backbone has {name} {theirs}, not {ours}."
            fault = Fault(pointer=f"/config/backbone/{name}", code="another_network", detail=detail)
            raise InvalidConfig(detail, errors=[fault])


def _train_split(dataset: Dataset) -> dict[str, Any]:
    report: dict[str, Any] = dataset.report or {}
    split: dict[str, Any] = report.get("splits", {}).get("train", {})
    return split

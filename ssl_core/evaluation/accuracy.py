"""Accuracy of a classifier: top-1 with a bootstrap interval, top-5, per class, and the confusion matrix.

All results are plain JSON values. The accuracy over several draws of labels is `compute_accuracy` of their ranks.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import rng

RESAMPLES = 1_000
MAX_CONFUSION_CLASSES, MAX_PER_CLASS = 100, 1_000  # with more classes they are omitted, so that a summary stays small
_TOP = 5
_EXAMPLES = 5


def compute_metrics(logits: Tensor, labels: Tensor, classes: list[str], seed: int) -> dict[str, Any]:
    """Return `compute_accuracy` and `compute_class_metrics` of one classifier.

    logits: N×C, or any score that is greater for a likelier class; labels: int64 N; classes: the C names.
    """
    ranks = compute_ranks(logits, labels)[None]
    return compute_accuracy(ranks, len(classes), seed) | compute_class_metrics(logits, labels, classes)


def compute_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the rank of each image's true class, int64 N: 0 is correct, C means that it has no score.

    logits: N×C, labels: int64 N. Ties go to the lower class; NaN and minus infinity are no score.
    """
    logits = _replace_nan(logits)
    own = logits.gather(1, labels[:, None])  # N×1
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    before = (logits > own) | ((logits == own) & earlier)
    return torch.where(own[:, 0] > -torch.inf, before.sum(1), logits.shape[1])


def compute_accuracy(ranks: Tensor, classes: int, seed: int) -> dict[str, Any]:
    """Return `top1`, `top1_interval` and, where there are more than five classes, `top5`; from 0 to 1.

    ranks: integers D×N, of N images by the classifiers of D draws of labels. The interval holds 95 % of the means over
    resampled images and, independently, resampled draws (percentile bootstrap, 1,000 resamples).
    """
    correct = (ranks == 0).cpu().numpy()
    found: dict[str, Any] = {"top1": float(correct.mean()), "top1_interval": _bootstrap_interval(correct, seed)}
    return found | {"top5": (ranks < _TOP).double().mean().item()} if classes > _TOP else found


def compute_class_metrics(logits: Tensor, labels: Tensor, classes: list[str]) -> dict[str, Any]:
    """Return `per_class` (name, images, top1, which is None without images) and `confusion` (C×C, rows: true class).

    The order is that of `classes`. With too many classes `left_out` says what is omitted.
    """
    count = len(classes)
    if count > MAX_PER_CLASS:
        return {"left_out": f"There are more than {MAX_PER_CLASS:,} classes: per-class accuracy is omitted."}
    logits = _replace_nan(logits)
    scored = logits.amax(1) > -torch.inf
    pairs = labels[scored] * count + logits[scored].argmax(1)
    confusion = torch.bincount(pairs, minlength=count**2).view(count, count).tolist()
    images = torch.bincount(labels, minlength=count).tolist()
    per_class = [
        {"name": name, "images": images[c], "top1": confusion[c][c] / images[c] if images[c] else None}
        for c, name in enumerate(classes)
    ]
    if count > MAX_CONFUSION_CLASSES:
        left_out = f"There are more than {MAX_CONFUSION_CLASSES} classes: the confusion matrix is omitted."
        return {"per_class": per_class, "left_out": left_out}
    return {"per_class": per_class, "confusion": confusion}


def warn_of_unseen_classes(training: Tensor, test: Tensor, classes: list[str]) -> dict[str, Any]:
    """Return `warnings`, as a dataset's report has them, of the test images whose class no training image has.

    training, test: labels, int64. Nothing is returned where there are none.
    """
    counts = torch.bincount(test, minlength=len(classes))
    counts[training.unique()] = 0
    unseen = counts.nonzero()[:, 0].tolist()
    if not unseen:
        return {}
    images = int(counts.sum())
    detail = (
        f"{images:,} of {len(test):,} test images are of classes that no labelled training image has: they count as"
        " errors of every classifier."
    )
    names = [classes[number] for number in unseen[:_EXAMPLES]]
    return {
        "warnings": [{"code": "class_without_training_images", "detail": detail, "count": images, "examples": names}]
    }


def _replace_nan(logits: Tensor) -> Tensor:
    return torch.where(logits.isnan(), -torch.inf, logits)


def _bootstrap_interval(correct: NDArray[np.bool_], seed: int) -> list[float]:
    """From the 2.5th to the 97.5th percentile of the mean of `correct`, D×N, over resampled draws and images.

    Images with the same column are exchangeable, so that the counts of each kind are one multinomial.
    """
    draws, images = correct.shape
    kinds, counts = np.unique(correct, axis=1, return_counts=True)  # D×K, K
    generator = np.random.default_rng(rng.stream(seed, rng.Stream.BOOTSTRAP))
    drawn_images = generator.multinomial(images, counts / images, RESAMPLES)  # R×K
    drawn_draws = generator.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES)  # R×D
    means = ((drawn_draws.astype(float) @ kinds) * drawn_images).sum(1) / (draws * images)
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]

"""Scores: what a classifier's guesses are worth beside the true labels, as plain JSON values.

`of` says everything about one classifier. A figure that is a mean over several draws of labels has `accuracy` of their
`ranks`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import rng

RESAMPLES = 1_000
CONFUSION_CLASSES, PER_CLASS_CLASSES = 100, 1_000  # of more classes it is left out: a summary must stay small
_TOP = 5


def of(logits: Tensor, labels: Tensor, classes: list[str], seed: int) -> dict[str, Any]:
    """Return `accuracy` and `by_class` of one classifier.

    logits: N×C, or anything that is greater for a likelier class; labels: int64 N; classes: the C names.
    """
    return accuracy(ranks(logits, labels)[None], len(classes), seed) | by_class(logits, labels, classes)


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before each image's own, int64 N: 0 is right, C means that it was not guessed.

    logits: N×C, labels: int64 N. Of equals the first comes before; NaN and minus infinity are no guess.
    """
    logits = _clean(logits)
    mine = logits.gather(1, labels[:, None])  # N×1
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    before = (logits > mine) | ((logits == mine) & earlier)
    return torch.where(mine[:, 0] > -torch.inf, before.sum(1), logits.shape[1])


def accuracy(ranks: Tensor, classes: int, seed: int) -> dict[str, Any]:
    """Return `top1`, `top1_interval` and, where there are more than five classes, `top5`; shares from 0 to 1.

    ranks: integers D×N, of N images by the classifiers of D draws of labels. The interval holds 95 % of the means over
    resampled images and, independently, resampled draws (percentile bootstrap, 1,000 resamples).
    """
    right = (ranks == 0).cpu().numpy()
    shown: dict[str, Any] = {"top1": float(right.mean()), "top1_interval": _interval(right, seed)}
    return shown | {"top5": (ranks < _TOP).double().mean().item()} if classes > _TOP else shown


def by_class(logits: Tensor, labels: Tensor, classes: list[str]) -> dict[str, Any]:
    """Return `per_class` (name, images, top1, which is None without images) and `confusion` (C×C, rows: true class).

    The order is that of `classes`. `left_out` says what is missing because there are too many of them.
    """
    count = len(classes)
    logits = _clean(logits)
    guessed = logits.amax(1) > -torch.inf
    pairs = labels[guessed] * count + logits[guessed].argmax(1)
    confusion = torch.bincount(pairs, minlength=count**2).view(count, count).tolist()
    images = torch.bincount(labels, minlength=count).tolist()
    per_class = [
        {"name": name, "images": images[c], "top1": confusion[c][c] / images[c] if images[c] else None}
        for c, name in enumerate(classes)
    ]
    if count > PER_CLASS_CLASSES:
        return {"left_out": f"There are more than {PER_CLASS_CLASSES:,} classes: none is shown by itself."}
    if count > CONFUSION_CLASSES:
        left_out = f"There are more than {CONFUSION_CLASSES} classes: their confusion matrix is not shown."
        return {"per_class": per_class, "left_out": left_out}
    return {"per_class": per_class, "confusion": confusion}


def _clean(logits: Tensor) -> Tensor:
    return torch.where(logits.isnan(), -torch.inf, logits)


def _interval(right: NDArray[np.bool_], seed: int) -> list[float]:
    """From the 2.5th to the 97.5th percentile of the mean of `right`, D×N, over resampled draws and images.

    Images with the same answers are exchangeable: how often each kind is drawn is one multinomial.
    """
    draws, images = right.shape
    kinds, counts = np.unique(right, axis=1, return_counts=True)  # D×K, K
    generator = np.random.default_rng(rng.stream(seed, rng.Stream.BOOTSTRAP))
    drawn_images = generator.multinomial(images, counts / images, RESAMPLES)  # R×K
    drawn_draws = generator.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES)  # R×D
    means = ((drawn_draws.astype(float) @ kinds) * drawn_images).sum(1) / (draws * images)
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]

"""Figures of a training run: the view grid at its start, the curves at its end.

matplotlib is imported when a figure is drawn, as that takes seconds.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_core import rng
from ssl_core.config import TrainingRun
from ssl_core.data.dataset import Dataset
from ssl_core.data.sampling import Rows, draw_evenly
from ssl_core.events import Artifact, Log
from ssl_core.reports import false_colour
from ssl_core.reports.false_colour import to_rgb
from ssl_core.reports.files import NamedFiles, write_reports
from ssl_core.reports.history import History
from ssl_core.training.learner import Learner
from ssl_core.training.training_data import TrainingData

_IMAGES, _ACROSS = 6, 8  # of the view grid: images, and views of each
_SHOWN = 320  # pixels, the longer side of an image in the grid, at most


def write_view_grid(learner: Learner, data: TrainingData, directory: Path) -> Iterator[Artifact | Log]:
    """Write `views.png`: some of the run's images beside the views that it is trained on."""
    yield from write_reports(directory, lambda: _views(learner, data))


def write_curves(learner: Learner, data: TrainingData, history: History, directory: Path) -> Iterator[Artifact | Log]:
    """Write `curves.png` and `curves.svg`, and the same points for TensorBoard."""
    yield from write_reports(directory, lambda: _curves(learner, data, history))
    yield from write_reports(directory, lambda: _event_file(history))


def _views(learner: Learner, data: TrainingData) -> NamedFiles:
    from ssl_core.reports import style, view_grid  # noqa: PLC0415

    rows, epochs = _sample_rows(data, learner.resolved), _sample_epochs(learner)
    images = data.images.batch(torch.from_numpy(rows))
    views = [learner.views(images, torch.from_numpy(rows), epoch, side) for epoch, side in epochs.items()]
    grid = [
        view_grid.GridRow(
            _image(data.dataset, row),
            _caption(data.dataset, row),
            [[_pixels(view[place]) for view in of_epoch] for of_epoch in views],
        )
        for place, row in enumerate(rows.tolist())
    ]
    note = "Left: images of the run. Right: their views, which the network is trained on"
    note += ": views of one image are to have similar embeddings." if learner.num_views > 1 else ", one in each epoch."
    note += false_colour.describe(data.dataset.channels)
    with style.figure_style():
        drawn = view_grid.draw(grid, list(epochs), "Views of the training images", note)
        yield "views.png", style.to_bytes(drawn, "png")


def _curves(learner: Learner, data: TrainingData, history: History) -> NamedFiles:
    from ssl_core.reports import style, training_curves  # noqa: PLC0415

    title, note = _title(learner.resolved, len(data.rows)), _settings(learner.resolved)
    with style.figure_style():
        drawn = training_curves.draw(history.series, learner.steps_per_epoch, _sizes(learner), title, note)
        if drawn is not None:
            yield "curves.png", style.to_bytes(drawn, "png")
            yield "curves.svg", style.to_bytes(drawn, "svg")


def _event_file(history: History) -> NamedFiles:
    from ssl_core.reports import tensorboard  # noqa: PLC0415

    yield tensorboard.NAME, tensorboard.build_event_file(history)


def _sample_rows(data: TrainingData, resolved: TrainingRun) -> Rows:
    """A few of the run's rows, drawn evenly from the classes."""
    labels = data.dataset.labels[data.rows]
    places = draw_evenly(labels, _IMAGES, rng.stream(resolved.seed, rng.Stream.VIEW_GRID))
    return data.rows[places[np.argsort(labels[places], kind="stable")]]


def _sample_epochs(learner: Learner) -> dict[int, int]:
    """The epochs to show and the side of their views: first the first whole epoch of each image size, then the earliest
    others, as many as fit.
    """
    last, per_epoch = learner.total_steps // learner.steps_per_epoch - 1, learner.steps_per_epoch
    firsts = {min(-(-start // per_epoch), last): learner.image_size(start) for start in learner.phase_starts()}
    columns = max(1, _ACROSS // learner.num_views)
    chosen = dict(list(firsts.items())[-columns:])
    for epoch in range(min(last + 1, _ACROSS)):
        if len(chosen) < columns:
            chosen.setdefault(epoch, learner.image_size(epoch * per_epoch))
    return dict(sorted(chosen.items()))


def _sizes(learner: Learner) -> dict[float, int]:
    """The epochs at which the views' size changes, with the new size in pixels; empty when it never does."""
    starts = learner.phase_starts()
    sizes = {start / learner.steps_per_epoch: learner.image_size(start) for start in starts}
    return sizes if len(sizes) > 1 else {}


def _image(dataset: Dataset, row: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(to_rgb(dataset.read_image(row))))
    image.thumbnail((_SHOWN, _SHOWN))  # does not enlarge
    return np.asarray(image)


def _pixels(view: Tensor) -> np.ndarray:
    """uint8 S×S×3 of float32 C×S×S on [0, 1]."""
    return to_rgb(view.mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())


def _caption(dataset: Dataset, row: int) -> str:
    height, width = dataset.sizes[row].tolist()
    label = int(dataset.labels[row])
    name = dataset.classes[label][:16] + ", " if 0 <= label < len(dataset.classes) else ""
    return f"{name}{width} × {height} px"


def _title(resolved: TrainingRun, images: int) -> str:
    epochs = f"{resolved.epochs} epoch{'' if resolved.epochs == 1 else 's'}"
    return f"{resolved.heading}: {images:,} images, {epochs}"


def _settings(resolved: TrainingRun) -> str:
    assert resolved.optimizer != "auto"
    return (
        f"{resolved.backbone.name}, width {resolved.backbone.width:g}, batches of {resolved.batch_size},"
        f" {resolved.optimizer.name}, seed {resolved.seed}."
    )

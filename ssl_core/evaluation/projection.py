"""The projection run: features in two dimensions by t-SNE, PCA or UMAP, as coordinates and figures.

Features are normalised to unit length first, as for the kNN classifier. Labels are optional: they only colour the
figures.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ssl_core import rng
from ssl_core.config import Project
from ssl_core.config.requirements import no_such_layer
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_store import read_centre_crops
from ssl_core.data.sampling import Rows, draw_evenly
from ssl_core.data.split_names import SPLITS
from ssl_core.errors import ConfigUnfit
from ssl_core.evaluation.features import extract_features
from ssl_core.events import Event, Progress, Result, Stopped
from ssl_core.files import write_artifact
from ssl_core.inputs import Inputs
from ssl_core.models.encoder import Encoder
from ssl_core.reports import false_colour, files, projection_map, style
from ssl_core.serialization import model_card, saved_model

MIN_IMAGES = 4
_CHUNK = 1_024  # images decoded and encoded at a time

UnitFeatures = NDArray[np.float32]  # N×D, unit rows
Points = NDArray[np.float32]  # N×2


@dataclass(frozen=True)
class Projection:
    """Features in two dimensions, and the settings or statistics of the method."""

    points: Points
    details: Mapping[str, Any]


def run_project(config: Project, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Project the features and draw the figures; config: resolved. Raises RunFailure."""
    if inputs.model is None:
        raise ConfigUnfit("A projection needs a model.")
    dataset = Dataset.open(inputs.dataset)
    split = _select_split(dataset, config)
    rows = _select_rows(dataset, config, split)
    encoder = saved_model.load(inputs.model, config.device, precision=config.precision)
    if config.layer not in encoder.layers:
        raise ConfigUnfit(no_such_layer(config.layer, encoder.layers))
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    steps = _ProgressCounter(len(chunks) + len(config.methods) + 1, len(rows))
    parts: list[torch.Tensor] = []
    for chunk in chunks:
        pixels = read_centre_crops(dataset, chunk, encoder.image_size)
        parts.append(extract_features(encoder, pixels, config.layer).cpu())
        yield steps.report_step(len(chunk))
        if inputs.stop():
            yield Stopped(steps.step)
            return
    unit = F.normalize(torch.cat(parts), dim=1).numpy()
    projections: dict[str, Projection] = {}
    for method in config.methods:
        projections[method] = METHODS[method](unit, config)
        yield steps.report_step()
        if inputs.stop():
            yield Stopped(steps.step)
            return
    summary = _build_summary(config, encoder, split, rows, projections)
    note = _describe_model(saved_model.load_card(inputs.model), summary)
    for name, data in _render_files(dataset, rows, projections, summary, note):
        yield write_artifact(directory, name, data)
    yield steps.report_step()
    yield Result(summary)


class _ProgressCounter:
    """Counts the steps of the run."""

    def __init__(self, total: int, images: int) -> None:
        self.step, self._total, self._images, self._started = 0, total, 0, time.monotonic()

    def report_step(self, images: int = 0) -> Progress:
        self.step += 1
        self._images += images
        seconds = max(time.monotonic() - self._started, 1e-9)
        eta = seconds / self.step * (self._total - self.step)
        return Progress(0, 1, self.step, self._total, self._images / seconds, eta)


def _select_split(dataset: Dataset, config: Project) -> str:
    if config.split != "auto":
        return config.split
    return next((split for split in reversed(SPLITS) if len(dataset.indices(split))), "train")


def _select_rows(dataset: Dataset, config: Project, split: str) -> Rows:
    rows = dataset.indices(split)
    if len(rows) < MIN_IMAGES:
        raise ConfigUnfit(f"A projection needs at least {MIN_IMAGES} images; the {split} split has {len(rows)}.")
    if len(rows) <= config.images:
        return rows
    return np.sort(
        rows[draw_evenly(dataset.labels[rows], config.images, rng.stream(config.seed, rng.Stream.PROJECTION))]
    )


def _project_tsne(unit: UnitFeatures, config: Project) -> Projection:
    """t-SNE (van der Maaten & Hinton, JMLR 2008), initialised with PCA."""
    perplexity = min(config.perplexity, len(unit) / 3)
    # The initial components are divided by their standard deviation, which is 0 for constant features.
    init: Any = "pca" if np.ptp(unit, axis=0).max() > 0 else "random"
    points = TSNE(perplexity=perplexity, init=init, random_state=config.seed).fit_transform(unit)
    return Projection(points, {"perplexity": perplexity})


def _project_pca(unit: UnitFeatures, config: Project) -> Projection:
    """PCA: the first two components and the share of the variance of each."""
    if np.ptp(unit, axis=0).max() == 0:
        return Projection(np.zeros((len(unit), 2), np.float32), {"explained_variance": [0.0, 0.0]})
    pca = PCA(2, svd_solver="full")
    return Projection(
        pca.fit_transform(unit), {"explained_variance": pca.explained_variance_ratio_.astype(float).tolist()}
    )


def _project_umap(unit: UnitFeatures, config: Project) -> Projection:
    """UMAP (McInnes et al., arXiv:1802.03426), on one thread for reproducibility. Raises ConfigUnfit."""
    try:
        from umap import UMAP  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise ConfigUnfit("UMAP is not installed on the worker: pip install 'twoviews[umap]'.") from error
    neighbours = min(config.neighbours, len(unit) - 1)
    threads = torch.get_num_threads()
    try:
        points = UMAP(n_neighbors=neighbours, random_state=config.seed, n_jobs=1, init="pca").fit_transform(unit)
    finally:
        torch.set_num_threads(threads)  # Numba sets them to all processors, as torch shares its OpenMP library
    return Projection(np.asarray(points, np.float32), {"neighbours": neighbours})


METHODS: dict[str, Callable[[UnitFeatures, Project], Projection]] = {
    "tsne": _project_tsne,
    "pca": _project_pca,
    "umap": _project_umap,
}


def _build_summary(
    config: Project, encoder: Encoder, split: str, rows: Rows, projections: Mapping[str, Projection]
) -> dict[str, Any]:
    return {
        "layer": config.layer,
        "dim": encoder.layers[config.layer],
        "image_size": encoder.image_size,
        "split": split,
        "images": len(rows),
        "seed": config.seed,
        "methods": {name: dict(projection.details) for name, projection in projections.items()},
    }


def _describe_model(card: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    backbone = card["backbone"]
    method = model_card.get_method_title(card) if card["method"] else "imported"
    network = f"{method} {backbone['name']}, width {backbone['width']:g}"
    return f"Model: {network}; layer {summary['layer']} ({summary['dim']} features)."


def _render_files(
    dataset: Dataset, rows: Rows, projections: Mapping[str, Projection], summary: Mapping[str, Any], note: str
) -> files.NamedFiles:
    yield "coordinates.json", _encode_coordinates(dataset, rows, projections, summary)
    images = f"{len(rows):,} images of the {summary['split']} split"
    labels, classes = dataset.labels[rows], dataset.classes
    first, projection = next(iter(projections.items()))
    with style.figure_style():
        panels = {name: projection_map.Panel(each.points, each.details) for name, each in projections.items()}
        scatter = projection_map.draw_scatter(panels, labels, classes, images, note)
        yield "projection.png", style.to_bytes(scatter, "png")
        thumbnails = false_colour.to_rgb(read_centre_crops(dataset, rows, projection_map.THUMBNAIL).numpy())
        note += false_colour.describe(dataset.channels)
        figure = projection_map.draw_thumbnails(first, projection.points, thumbnails, labels, classes, images, note)
        yield "thumbnails.png", style.to_bytes(figure, "png")


def _encode_coordinates(
    dataset: Dataset, rows: Rows, projections: Mapping[str, Projection], summary: Mapping[str, Any]
) -> bytes:
    """Return the projections as JSON; each point is an image, by its row in the dataset."""
    points = [
        {"row": row, "label": label if label >= 0 else None, "split": summary["split"]}
        | {
            name: [round(float(value), 4) for value in projection.points[index]]
            for name, projection in projections.items()
        }
        for index, (row, label) in enumerate(zip(rows.tolist(), dataset.labels[rows].tolist(), strict=True))
    ]
    return json.dumps({**summary, "classes": dataset.classes, "points": points}, allow_nan=False).encode()

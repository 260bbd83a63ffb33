"""The projection run: features of some images in two dimensions, as coordinates and as pictures.

Features are brought to unit length first, so that near means what it means to the kNN vote. Labels colour the pictures
and nothing else; a dataset without them will do.
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
from ssl_core.data.dataset import SPLITS, Dataset
from ssl_core.data.image_store import centre_crops
from ssl_core.data.sampling import Rows, draw_evenly
from ssl_core.errors import ConfigUnfit
from ssl_core.evaluation.features import extract_features
from ssl_core.events import Event, Progress, Result, Stopped
from ssl_core.files import write_artifact
from ssl_core.inputs import Inputs
from ssl_core.models.encoder import Encoder
from ssl_core.reports import files, projection_map, style
from ssl_core.serialization import model_card, saved_model

FEWEST = 4  # images of which a map can be drawn
_CHUNK = 1_024  # images that are read and encoded at a time

Features = NDArray[np.float32]  # N×D, unit rows
Places = NDArray[np.float32]  # N×2


@dataclass(frozen=True)
class Flat:
    """Features in two dimensions, and what to know of how they came there."""

    places: Places
    about: Mapping[str, Any]


def run_project(config: Project, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Draw the maps; `config` is resolved. Raises RunFailure."""
    if inputs.model is None:
        raise ConfigUnfit("A projection needs a model.")
    dataset = Dataset.open(inputs.dataset)
    split = _split(dataset, config)
    rows = _rows(dataset, config, split)
    encoder = saved_model.load(inputs.model, config.device, precision=config.precision)
    if config.layer not in encoder.layers:
        raise ConfigUnfit(no_such_layer(config.layer, encoder.layers))
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    steps = _Steps(len(chunks) + len(config.methods) + 1, len(rows))
    parts: list[torch.Tensor] = []
    for chunk in chunks:
        parts.append(extract_features(encoder, centre_crops(dataset, chunk, encoder.image_size), config.layer))
        yield steps.next(len(chunk))
        if inputs.stop():
            yield Stopped(steps.done)
            return
    unit = F.normalize(torch.cat(parts), dim=1).numpy()
    flats: dict[str, Flat] = {}
    for method in config.methods:
        flats[method] = METHODS[method](unit, config)
        yield steps.next()
        if inputs.stop():
            yield Stopped(steps.done)
            return
    about = _about(config, encoder, split, rows, flats)
    for name, data in _files(dataset, rows, flats, about, _sentence(saved_model.load_card(inputs.model), about)):
        yield write_artifact(directory, name, data)
    yield steps.next()
    yield Result(about)


class _Steps:
    """How far the run is."""

    def __init__(self, total: int, images: int) -> None:
        self.done, self._total, self._images, self._started = 0, total, 0, time.monotonic()

    def next(self, images: int = 0) -> Progress:
        self.done += 1
        self._images += images
        seconds = max(time.monotonic() - self._started, 1e-9)
        left = seconds / self.done * (self._total - self.done)
        return Progress(0, 1, self.done, self._total, self._images / seconds, left)


def _split(dataset: Dataset, config: Project) -> str:
    if config.split != "auto":
        return config.split
    return next((split for split in reversed(SPLITS) if len(dataset.indices(split))), "train")


def _rows(dataset: Dataset, config: Project, split: str) -> Rows:
    rows = dataset.indices(split)
    if len(rows) < FEWEST:
        raise ConfigUnfit(f"A projection needs at least {FEWEST} images; the {split} split has {len(rows)}.")
    if len(rows) <= config.images:
        return rows
    return np.sort(
        rows[draw_evenly(dataset.labels[rows], config.images, rng.stream(config.seed, rng.Stream.PROJECTION))]
    )


def _tsne(unit: Features, config: Project) -> Flat:
    """van der Maaten & Hinton (JMLR 2008), begun at the principal components."""
    perplexity = min(config.perplexity, len(unit) / 3)
    # Before the first turn the components are scaled by their spread; where there is none, that is a division by 0.
    start: Any = "pca" if np.ptp(unit, axis=0).max() > 0 else "random"
    made = TSNE(perplexity=perplexity, init=start, random_state=config.seed).fit_transform(unit)
    return Flat(made, {"perplexity": perplexity})


def _pca(unit: Features, config: Project) -> Flat:
    """The two principal components, and the share of the variance in each."""
    if np.ptp(unit, axis=0).max() == 0:
        return Flat(np.zeros((len(unit), 2), np.float32), {"explained_variance": [0.0, 0.0]})
    pca = PCA(2, svd_solver="full")
    return Flat(pca.fit_transform(unit), {"explained_variance": pca.explained_variance_ratio_.astype(float).tolist()})


def _umap(unit: Features, config: Project) -> Flat:
    """McInnes et al. (arXiv:1802.03426), on one thread, so that a seed gives one map. Raises ConfigUnfit."""
    try:
        from umap import UMAP  # noqa: PLC0415 - an extra, and slow to load
    except ImportError as error:
        raise ConfigUnfit("UMAP is not installed on the worker: pip install 'twoviews[umap]'.") from error
    neighbours = min(config.neighbours, len(unit) - 1)
    made = UMAP(n_neighbors=neighbours, random_state=config.seed, n_jobs=1, init="pca").fit_transform(unit)
    return Flat(np.asarray(made, np.float32), {"neighbours": neighbours})


METHODS: dict[str, Callable[[Features, Project], Flat]] = {"tsne": _tsne, "pca": _pca, "umap": _umap}


def _about(config: Project, encoder: Encoder, split: str, rows: Rows, flats: Mapping[str, Flat]) -> dict[str, Any]:
    return {
        "layer": config.layer,
        "dim": encoder.layers[config.layer],
        "image_size": encoder.image_size,
        "split": split,
        "images": len(rows),
        "seed": config.seed,
        "methods": {name: dict(flat.about) for name, flat in flats.items()},
    }


def _sentence(card: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    backbone = card["backbone"]
    trained = model_card.get_method_title(card) if card["method"] else "imported"
    network = f"{trained} {backbone['name']}, width {backbone['width']:g}"
    return f"Model: {network}; layer {about['layer']} ({about['dim']} numbers an image)."


def _files(
    dataset: Dataset, rows: Rows, flats: Mapping[str, Flat], about: Mapping[str, Any], sentence: str
) -> files.NamedFiles:
    yield "coordinates.json", _coordinates(dataset, rows, flats, about)
    images = f"{len(rows):,} images of the {about['split']} split"
    labels, classes = dataset.labels[rows], dataset.classes
    first, flat = next(iter(flats.items()))
    with style.style():
        panels = {name: projection_map.Panel(flat.places, flat.about) for name, flat in flats.items()}
        yield "projection.png", style.to_bytes(projection_map.scatter(panels, labels, classes, images, sentence), "png")
        thumbnails = centre_crops(dataset, rows, projection_map.THUMBNAIL).numpy()
        sheet = projection_map.sheet(first, flat.places, thumbnails, labels, classes, images, sentence)
        yield "thumbnails.png", style.to_bytes(sheet, "png")


def _coordinates(dataset: Dataset, rows: Rows, flats: Mapping[str, Flat], about: Mapping[str, Any]) -> bytes:
    """The map as JSON; each point is an image, by its row in the dataset."""
    points = [
        {"row": row, "label": label if label >= 0 else None, "split": about["split"]}
        | {name: [round(float(value), 4) for value in flat.places[place]] for name, flat in flats.items()}
        for place, (row, label) in enumerate(zip(rows.tolist(), dataset.labels[rows].tolist(), strict=True))
    ]
    return json.dumps({**about, "classes": dataset.classes, "points": points}, allow_nan=False).encode()

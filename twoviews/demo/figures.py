"""The demo's figures: loss curves, a t-SNE map of the embeddings, nearest neighbours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from sklearn.manifold import TSNE

from twoviews.values import Metrics

NAMES = {
    "loss.png": "loss and kNN accuracy over the epochs",
    "tsne.png": "t-SNE of the test embeddings",
    "neighbours.png": "nearest neighbours of test images",
}
INK, FAINT, PAPER = "#22272e", "#8b949e", "#ffffff"
COLOURS = {"SimCLR": "#0b6bcb", "SimSiam": "#d9622b"}
DIGIT_COLOURS = tuple(mpl.colormaps["tab10"].colors)  # type: ignore[attr-defined]
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#d0d7de",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#eaeef2",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "figure.facecolor": PAPER,
}


def draw_curves(runs: Mapping[str, Metrics], path: Path) -> None:
    """Draw the loss and the online kNN accuracy of each run over the epochs."""
    with mpl.rc_context(STYLE):
        figure = _make_figure(10, 4.6, "Self-supervised training of two encoders on digits")
        _add_caption(
            figure,
            "Left and middle: the training loss of each. Right: the kNN accuracy during training.",
        )
        axes = figure.subplots(
            1, 3, gridspec_kw={"wspace": 0.28, "top": 0.75, "bottom": 0.13, "left": 0.06, "right": 0.97}
        )
        for axis, (name, metrics) in zip(axes, runs.items(), strict=False):
            _plot_loss(axis, name, metrics)
        for name, metrics in runs.items():
            _plot_knn(axes[2], name, metrics)
        axes[2].set_title("kNN accuracy, %", loc="left", fontsize=11)
        axes[2].legend(frameon=False, loc="lower right")
        for axis in axes:
            axis.set_xlabel("epoch")
        _save(figure, path)


def draw_tsne(vectors: Any, labels: Any, path: Path) -> None:
    """Draw the t-SNE projection of the embeddings (N×D), coloured by digit; training had no labels."""
    points_2d = TSNE(perplexity=30, init="pca", random_state=0).fit_transform(_normalize(vectors))
    with mpl.rc_context(STYLE):
        figure = _make_figure(7.6, 7.6, "t-SNE of the test images' embeddings")
        _add_caption(
            figure, f"SimCLR embeddings of {len(points_2d)} test images. Colour is the digit; training had no labels."
        )
        axis = figure.add_axes((0.03, 0.03, 0.94, 0.86))
        axis.axis("off")
        for digit in range(10):
            points = points_2d[labels == digit]
            axis.scatter(
                points[:, 0], points[:, 1], s=16, color=DIGIT_COLOURS[digit], alpha=0.8, linewidths=0, label=str(digit)
            )
            _annotate(axis, np.median(points, axis=0), str(digit))
        axis.legend(
            ncols=10,
            loc="lower center",
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.2,
            markerscale=1.8,
            fontsize=11,
        )
        axis.set_ylim(points_2d[:, 1].min() - 0.09 * np.ptp(points_2d[:, 1]), None)
        _save(figure, path)


def draw_neighbours(vectors: Any, images: Any, labels: Any, path: Path, shown: int = 10) -> None:
    """Draw one test image per digit and its nearest neighbours; those of another digit have a red frame."""
    unit = _normalize(vectors)
    queries = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    with mpl.rc_context(STYLE):
        figure = _make_figure(8.6, 8.6, "Nearest neighbours by SimCLR embedding")
        _add_caption(
            figure, "Left: one test image of each digit. Right: the ten nearest; a red frame is a different digit."
        )
        axes = figure.subplots(
            10,
            shown + 2,
            gridspec_kw={
                "wspace": 0.12,
                "hspace": 0.12,
                "top": 0.88,
                "bottom": 0.03,
                "left": 0.03,
                "right": 0.97,
                "width_ratios": [1, 0.35] + [1] * shown,
            },
        )
        for row, query in zip(axes, queries, strict=True):
            near = [place for place in np.argsort(-unit @ unit[query]) if place != query][:shown]
            _draw_image(row[0], images[query], INK)
            row[1].axis("off")
            for axis, place in zip(row[2:], near, strict=True):
                _draw_image(axis, images[place], None if labels[place] == labels[query] else "#d1242f")
        _save(figure, path)


def _plot_loss(axis: Any, name: str, metrics: Metrics) -> None:
    series = metrics.series["train/loss"]
    value = np.array(series.value, dtype=float)
    axis.plot(series.epoch, value, color=COLOURS[name], alpha=0.25, linewidth=0.8)
    width = max(1, len(value) // 25)
    smooth = np.convolve(value, np.ones(width) / width, mode="valid")
    middle = (width - 1) // 2
    axis.plot(series.epoch[middle : middle + len(smooth)], smooth, color=COLOURS[name], linewidth=1.8)
    axis.set_title(f"{name}: loss", loc="left", fontsize=11)
    axis.margins(x=0.02)


def _plot_knn(axis: Any, name: str, metrics: Metrics) -> None:
    series = metrics.series.get("online/knn")
    if series is not None:
        percent = [100 * value if value is not None else np.nan for value in series.value]
        axis.plot(series.epoch, percent, color=COLOURS[name], marker="o", markersize=4, linewidth=1.8, label=name)


def _annotate(axis: Any, place: Any, text: str) -> None:
    halo = [withStroke(linewidth=3, foreground=PAPER)]
    axis.text(place[0], place[1], text, fontsize=15, fontweight="bold", ha="center", va="center", path_effects=halo)


def _draw_image(axis: Any, image: Any, frame: str | None) -> None:
    axis.imshow(255 - image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.axis("off")
    if frame is not None:
        corner, side = (-0.5, -0.5), image.shape[0]
        axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=frame, linewidth=2.2, clip_on=False))


def _normalize(vectors: Any) -> Any:
    """Divide each row (N×D) by its L2 norm."""
    rows = np.asarray(vectors, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _make_figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=160)
    FigureCanvasAgg(figure)
    figure.text(0.03, 1 - 0.28 / height, title, fontsize=15, fontweight="bold", va="top")
    return figure


def _add_caption(figure: Figure, sentence: str) -> None:
    figure.text(0.03, 1 - 0.64 / figure.get_figheight(), sentence, fontsize=10, color=FAINT, va="top")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, facecolor=PAPER)

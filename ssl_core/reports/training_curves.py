"""Training curves: one figure with a panel for each metric over the epochs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_core.reports.history import Series
from ssl_core.reports.style import GREY, SERIES_COLOURS, create_figure

_MAX_MARKERS = 30  # points, up to which each has a marker
_MIN_SMOOTHED = 60  # points, from which on a running mean is drawn over them


@dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    series: Mapping[str, str]  # metric -> label in the legend
    noisy: bool = False
    marks: Mapping[float, str] = field(default_factory=dict)  # values to mark -> label
    factor: float = 1.0


# By importance: panels that do not fill a row are omitted.
_PANELS = (
    _Panel("Training loss", "loss", {"train/loss": ""}, noisy=True),
    _Panel("Learning rate", "learning rate", {"train/lr": ""}),
    _Panel(
        "Accuracy on held-out images",
        "top-1, %",
        {"online/knn": "kNN", "online/linear": "linear classifier", "online/top1": "classifier"},
        factor=100,
    ),
    _Panel(
        "Spread of the embeddings",
        "std × √dimensions",
        {"train/std": ""},
        noisy=True,
        marks={1.0: "1: no collapse", 0.0: "0: collapse"},
    ),
    _Panel("Effective rank of the embeddings (RankMe)", "rank", {"train/rankme": ""}),
    _Panel("Gradient norm", "norm over all parameters", {"train/grad_norm": ""}, noisy=True),
    _Panel("Throughput", "images per second", {"train/images_per_second": ""}, noisy=True),
)
_COLUMNS = 3  # panels in a row


def draw(
    series: Mapping[str, Series], steps_per_epoch: int, sizes: Mapping[float, int], title: str, note: str
) -> Figure | None:
    """Return a figure of the metrics over the epochs; None without any of them.

    sizes: epoch -> image size of the views from there on, in pixels; empty when it is constant.
    """
    panels = [panel for panel in _PANELS if any(name in series for name in panel.series)]
    panels = panels[: max(_COLUMNS, len(panels) // _COLUMNS * _COLUMNS)]
    if not panels:
        return None
    rows = -(-len(panels) // _COLUMNS)
    height = 0.9 + 3.0 * rows
    figure = create_figure(13.0, height, title, " ".join([note, *_describe_lines(series, sizes)]))
    figure.subplots_adjust(0.065, 0.5 / height, 0.985, 1 - 1.2 / height, wspace=0.26, hspace=0.48)
    for index, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, _COLUMNS, index)
        _draw_panel(axes, panel, series, steps_per_epoch)
        for epoch in sizes:
            axes.axvline(epoch, color=GREY, linewidth=0.8, linestyle=":")
    return figure


def _describe_lines(series: Mapping[str, Series], sizes: Mapping[float, int]) -> list[str]:
    """Return sentences that explain the lines."""
    sentences = []
    if any(
        panel.noisy and len(series[name].step) >= _MIN_SMOOTHED
        for panel in _PANELS
        for name in panel.series
        if name in series
    ):
        sentences.append("Pale: each point; strong: running mean.")
    if sizes:
        sentences.append(f"Views have {', '.join(map(str, sizes.values()))} px, changing at the dotted lines.")
    return sentences


def _draw_panel(axes: Axes, panel: _Panel, series: Mapping[str, Series], steps_per_epoch: int) -> None:
    present = [name for name in panel.series if name in series]
    for name, colour in zip(present, SERIES_COLOURS, strict=False):
        points = series[name]
        epoch = np.array(points.step) / steps_per_epoch
        value = np.array(points.value, dtype=float) * panel.factor  # None is a gap
        _draw_line(axes, epoch, value, colour, panel.noisy, panel.series[name])
    axes.set_title(panel.title)
    axes.set_xlabel("epoch")
    axes.set_ylabel(panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlim(left=0)
    if panel.marks:
        axes.set_ylim(min(panel.marks) - 0.1, max(*panel.marks, axes.get_ylim()[1]) + 0.15)
    for mark, label in panel.marks.items():
        axes.axhline(mark, color=GREY, linewidth=0.8, linestyle="--")
        axes.annotate(
            label,
            (1, mark),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=GREY,
        )
    if len(present) > 1:
        axes.legend(loc="lower right", frameon=True, edgecolor="none", framealpha=0.9)


def _draw_line(axes: Axes, epoch: Any, value: Any, colour: str, noisy: bool, label: str) -> None:
    smoothed = noisy and len(value) >= _MIN_SMOOTHED
    marker = "o" if len(value) <= _MAX_MARKERS else None
    axes.plot(
        epoch,
        value,
        color=colour,
        alpha=0.25 if smoothed else 1,
        linewidth=0.8 if smoothed else 1.6,
        marker=marker,
        markersize=3.5,
        label=label,
    )
    if smoothed:
        width = max(3, len(value) // 25)
        offset = (width - 1) // 2
        mean = np.convolve(value, np.ones(width) / width, mode="valid")
        axes.plot(epoch[offset : offset + len(mean)], mean, color=colour, linewidth=1.8)

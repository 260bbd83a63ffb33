"""The pictures of a training run: the views that it sees, and its curves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_core.reports.history import Series
from ssl_core.reports.style import GREY, titled_figure

_COLOURS = ("#0b6bcb", "#d9622b")
_MARKED = 30  # up to so many points each has a mark
_SMOOTHED = 60  # from so many points on, a running mean is drawn over them


@dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    series: Mapping[str, str]  # a metric's name -> what it is called in the legend
    noisy: bool = False
    marks: Mapping[float, str] = field(default_factory=dict)  # values that mean something, and what
    factor: float = 1.0


# The more telling first: what does not fill a row is left out.
_PANELS = (
    _Panel("Loss: what the run minimises", "loss", {"train/loss": ""}, noisy=True),
    _Panel("Learning rate", "learning rate", {"train/lr": ""}),
    _Panel(
        "Accuracy on images held out",
        "images named rightly, %",
        {"online/knn": "nearest neighbours", "online/linear": "linear classifier", "online/top1": "its own classifier"},
        factor=100,
    ),
    _Panel(
        "Spread of the embeddings",
        "std × √dimensions",
        {"train/std": ""},
        noisy=True,
        marks={1.0: "near 1: healthy", 0.0: "0: collapse"},
    ),
    _Panel("Effective rank of the embeddings (RankMe)", "dimensions in use", {"train/rankme": ""}),
    _Panel("Length of the gradient", "norm over all parameters", {"train/grad_norm": ""}, noisy=True),
    _Panel("Speed", "images a second", {"train/images_per_second": ""}, noisy=True),
)
_ACROSS = 3  # panels in a row


def draw(
    series: Mapping[str, Series], steps_per_epoch: int, sizes: Mapping[float, int], title: str, note: str
) -> Figure | None:
    """Draw the metrics over the epochs; None when there is nothing to draw.

    sizes: the epoch from which views have a size -> that size, in pixels; empty when it never changes.
    """
    panels = [panel for panel in _PANELS if any(name in series for name in panel.series)]
    panels = panels[: max(_ACROSS, len(panels) // _ACROSS * _ACROSS)]
    if not panels:
        return None
    down = -(-len(panels) // _ACROSS)
    height = 0.9 + 3.0 * down
    figure = titled_figure(13.0, height, title, " ".join([note, *_legend(series, sizes)]))
    figure.subplots_adjust(0.065, 0.5 / height, 0.985, 1 - 1.2 / height, wspace=0.26, hspace=0.48)
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(down, _ACROSS, place)
        _draw_panel(axes, panel, series, steps_per_epoch)
        for epoch in sizes:
            axes.axvline(epoch, color=GREY, linewidth=0.8, linestyle=":")
    return figure


def _legend(series: Mapping[str, Series], sizes: Mapping[float, int]) -> list[str]:
    """Sentences on what the lines are."""
    told = []
    if any(
        panel.noisy and len(series[name].step) >= _SMOOTHED
        for panel in _PANELS
        for name in panel.series
        if name in series
    ):
        told.append("Pale: each point; strong: running mean.")
    if sizes:
        told.append(f"Views have {', '.join(map(str, sizes.values()))} px, changing at the dotted lines.")
    return told


def _draw_panel(axes: Axes, panel: _Panel, series: Mapping[str, Series], steps_per_epoch: int) -> None:
    present = [name for name in panel.series if name in series]
    for name, colour in zip(present, _COLOURS, strict=False):
        found = series[name]
        epoch = np.array(found.step) / steps_per_epoch
        value = np.array(found.value, dtype=float) * panel.factor  # None is a gap
        _line(axes, epoch, value, colour, panel.noisy, panel.series[name])
    axes.set_title(panel.title)
    axes.set_xlabel("epoch")
    axes.set_ylabel(panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlim(left=0)
    if panel.marks:
        axes.set_ylim(min(panel.marks) - 0.1, max(*panel.marks, axes.get_ylim()[1]) + 0.15)
    for mark, meaning in panel.marks.items():
        axes.axhline(mark, color=GREY, linewidth=0.8, linestyle="--")
        axes.annotate(
            meaning,
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


def _line(axes: Axes, epoch: Any, value: Any, colour: str, noisy: bool, label: str) -> None:
    smoothed = noisy and len(value) >= _SMOOTHED
    marker = "o" if len(value) <= _MARKED else None
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
        middle = (width - 1) // 2
        mean = np.convolve(value, np.ones(width) / width, mode="valid")
        axes.plot(epoch[middle : middle + len(mean)], mean, color=colour, linewidth=1.8)

"""The confusion matrix: counts of predicted by true classes, as `confusion.png`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.events import Artifact, Log
from ssl_core.reports.files import write_reports

NAME = "confusion.png"
_MAX_NUMBERED = 20  # classes, up to which cells show their counts
_MAX_NAME = 20  # characters of a class name
_HEADER, _MARGIN = 0.9, 0.15  # inches: title and note; around the axes


def write(details: Mapping[str, Any], top1: float, directory: Path) -> Iterator[Artifact | Log]:
    """Write the figure into the directory if `details`, of `accuracy.compute_class_metrics`, has a confusion matrix."""
    if "confusion" in details:
        names = [row["name"] for row in details["per_class"]]
        yield from write_reports(directory, lambda: iter([(NAME, draw(details["confusion"], names, top1))]))


def draw(confusion: Sequence[Sequence[int]], names: Sequence[str], top1: float) -> bytes:
    """Return a PNG. confusion: C×C counts, a row for each true class; the colour is the share of the row."""
    from ssl_core.reports import style  # noqa: PLC0415 - matplotlib takes a second to load

    counts = np.asarray(confusion)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(14.0, 3.0 + 0.45 * len(names))
    with style.figure_style():
        figure = style.create_figure(
            side, side + _HEADER, "Confusion matrix", f"Top-1 {top1:.1%}; colours are shares of each row."
        )
        across, up = _MARGIN / side, _MARGIN / (side + _HEADER)
        box = (across, up, 1 - 2 * across, 1 - up - _HEADER / (side + _HEADER))
        figure.set_layout_engine("constrained", rect=box)
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        ticks, size = range(len(names)), min(10.0, 400 / len(names))
        labels = [style.format_line(name, _MAX_NAME) for name in names]
        axes.set_xticks(ticks, labels, rotation=90, fontsize=size)
        axes.set_yticks(ticks, labels, fontsize=size)
        for (row, column), count in np.ndenumerate(counts) if len(names) <= _MAX_NUMBERED else ():
            colour = style.PAPER if shares[row, column] > 0.5 else style.INK
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
        return style.to_bytes(figure, "png")

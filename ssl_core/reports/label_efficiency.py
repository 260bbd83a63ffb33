"""The label efficiency figure: accuracy over the number of labels, of the model and the baselines."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.events import Artifact, Log
from ssl_core.reports.files import NamedFiles, write_reports

Row = Mapping[str, Any]  # of a linear evaluation's results
NAMES = {"png": "labels.png", "svg": "labels.svg"}
_LABELS = {"model": "model", "pixels": "raw pixels", "random": "random network"}


def write(results: Sequence[Row], test_name: str, directory: Path) -> Iterator[Artifact | Log]:
    """Write `labels.png` and `labels.svg` into the directory, unless there is one fraction of the labels only.

    test_name: the name of the test images for the note.
    """
    if len({row["label_fraction"] for row in results}) >= 2:
        yield from write_reports(directory, lambda: _render(results, test_name))


def draw(results: Sequence[Row], test_name: str) -> dict[str, bytes]:
    """Return a PNG and an SVG."""
    from ssl_core.reports import style  # noqa: PLC0415 - matplotlib takes a second to load

    draws = max(row["draws"] for row in results)
    note = f"Linear evaluation on {test_name}. Bands are 95 % bootstrap intervals over the images"
    note += f" and the draws of labels, {draws} for each fraction below 1." if draws > 1 else "."
    with style.figure_style():
        figure = style.create_figure(7.5, 5.2, "Accuracy over the number of labels", note)
        figure.subplots_adjust(0.1, 0.11, 0.97, 1 - 1.15 / 5.2)
        axes = figure.add_subplot()
        for (name, label), colour in zip(_LABELS.items(), (*style.SERIES_COLOURS, style.GREY), strict=True):
            if rows := [row for row in results if row["features"] == name]:
                counts = [row["labels"] for row in rows]
                low, high = 100 * np.array([row["top1_interval"] for row in rows]).T
                axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(counts, [100 * row["top1"] for row in rows], "o-", color=colour, label=label, markersize=4)
        counts = sorted({row["labels"] for row in results})
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,.0f}" for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("labelled training images")
        axes.set_ylabel("top-1, %")
        axes.legend(loc="lower right", frameon=True, edgecolor="none", framealpha=0.9)
        return {form: style.to_bytes(figure, form) for form in NAMES}


def _render(results: Sequence[Row], test_name: str) -> NamedFiles:
    for form, data in draw(results, test_name).items():
        yield NAMES[form], data

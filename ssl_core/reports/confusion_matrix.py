"""The picture of a confusion matrix: what was taken for what, as `confusion.png`."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.events import Artifact, Log
from ssl_core.files import FULL, write_artifact

NAME = "confusion.png"
_NUMBERED = 20  # classes up to which every cell shows its number
_LONGEST = 20  # letters of a class's name
_DPI = 110


def write(details: Mapping[str, Any], top1: float, directory: Path) -> Iterator[Artifact | Log]:
    """Write the picture of `scores.by_class`, where that has a matrix, into the directory; a full disk has none."""
    if "confusion" not in details:
        return
    names = [row["name"] for row in details["per_class"]]
    try:
        yield write_artifact(directory, NAME, draw(details["confusion"], names, top1))
    except OSError as error:
        if error.errno not in FULL:
            raise
        yield Log("warning", f"The storage is full: there is no {NAME}.", "storage_full")


def draw(confusion: Sequence[Sequence[int]], names: Sequence[str], top1: float) -> bytes:
    """Return a PNG. confusion: C×C, rows: true class, in shares of which the cells are coloured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - it takes a second to load
    from matplotlib.figure import Figure  # noqa: PLC0415

    counts = np.asarray(confusion)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(14.0, 3.0 + 0.45 * len(names))
    figure = Figure(figsize=(side, side), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(f"Confusion matrix: {top1:.1%} right")
    axes.set_xlabel("guessed")
    axes.set_ylabel("true")
    ticks, size = range(len(names)), min(10.0, 400 / len(names))
    axes.set_xticks(ticks, [_plain(name) for name in names], rotation=90, fontsize=size)
    axes.set_yticks(ticks, [_plain(name) for name in names], fontsize=size)
    for (row, column), count in np.ndenumerate(counts) if len(names) <= _NUMBERED else ():
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks: they are drawn as boxes
        figure.savefig(file, format="png")
    return file.getvalue()


def _plain(name: str) -> str:
    """A class's name as one short line that is drawn as it stands."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    short = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    return short.replace("$", r"\$")

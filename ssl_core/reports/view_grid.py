"""The view grid: images of a run beside the views that the network is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssl_core.reports.style import GREY, INK, plain_line, titled_figure

Image = NDArray[Any]  # H×W×3, uint8 or floats on [0, 1]


_CELL, _GAP, _CAPTION = 1.1, 0.06, 0.3  # inches


_NARROWEST = 7.5  # inches, for the title's sake


_PIXELS_SHOWN = 64  # up to this side each pixel of an image is a square of its own


@dataclass(frozen=True)
class GridRow:
    """A row of the view grid: an image, its caption, and its views of each epoch that is shown."""

    image: Image
    caption: str
    views: Sequence[Sequence[Image]]


def draw(rows: Sequence[GridRow], epochs: Sequence[int], title: str, note: str) -> Figure:
    """Draw each image beside its views; `epochs` are those of the views, counted from 0."""
    group = len(rows[0].views[0]) * (_CELL + _GAP)
    width = max(_NARROWEST, 0.25 + _CELL + len(epochs) * (group + 0.2) + 0.25)
    height = 1.35 + len(rows) * (_CELL + _CAPTION)
    figure = titled_figure(width, height, title, note)
    place = _Grid(figure, width, height)
    place.heading(0.25, 0, "image")
    for column, epoch in enumerate(epochs):
        left = 0.25 + _CELL + 0.2 + column * (group + 0.2)
        place.heading(left, 1, f"epoch {epoch + 1}")
        for view, first in enumerate(rows[0].views[column]):
            here = left + view * (_CELL + _GAP)
            place.heading(here, 0, f"view {view + 1}, {first.shape[0]} px")
            for row, sight in enumerate(rows):
                place.image(here, row, sight.views[column][view])
    for row, sight in enumerate(rows):
        place.image(0.25, row, sight.image)
        place.caption(0.25, row, sight.caption)
    return figure


class _Grid:
    """Places in inches from the left, and rows from the top."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self._figure, self._width, self._height = figure, width, height

    def heading(self, left: float, level: int, text: str) -> None:
        """Write above the first row; level 1 stands above level 0."""
        size, colour = (10.5, INK) if level else (8.5, GREY)
        self._text(left, 1.27 - 0.2 * level, text, size, colour)

    def caption(self, left: float, row: int, text: str) -> None:
        self._text(left, self._top(row) + _CELL + 0.15, text, 8, GREY)

    def image(self, left: float, row: int, image: Image) -> None:
        bottom = self._height - self._top(row) - _CELL
        box = (left / self._width, bottom / self._height, _CELL / self._width, _CELL / self._height)
        axes = self._figure.add_axes(box)
        axes.imshow(image, interpolation="nearest" if max(image.shape) <= _PIXELS_SHOWN else "antialiased")
        axes.axis("off")

    def _top(self, row: int) -> float:
        return 1.33 + row * (_CELL + _CAPTION)

    def _text(self, left: float, top: float, text: str, size: float, colour: str) -> None:
        where = left / self._width, 1 - top / self._height
        self._figure.text(*where, plain_line(text, 60), fontsize=size, color=colour, va="baseline")

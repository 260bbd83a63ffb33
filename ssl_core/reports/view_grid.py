"""The view grid figure: images of a run beside their augmented views."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssl_core.reports.style import GREY, INK, create_figure, format_line

Image = NDArray[Any]  # H×W×3, uint8 or floats on [0, 1]
_CELL, _GAP, _CAPTION = 1.1, 0.06, 0.3  # inches
_MIN_WIDTH = 7.5  # inches, for the title
_MAX_NEAREST = 64  # pixels, up to which an image is drawn without interpolation


@dataclass(frozen=True)
class GridRow:
    """A row of the grid: an image, its caption, and its views in each of the figure's epochs."""

    image: Image
    caption: str
    views: Sequence[Sequence[Image]]


def draw(rows: Sequence[GridRow], epochs: Sequence[int], title: str, note: str) -> Figure:
    """Return a figure of each image beside its views; epochs: those of the views, from 0."""
    group = len(rows[0].views[0]) * (_CELL + _GAP)
    width = max(_MIN_WIDTH, 0.25 + _CELL + len(epochs) * (group + 0.2) + 0.25)
    height = 1.35 + len(rows) * (_CELL + _CAPTION)
    figure = create_figure(width, height, title, note)
    grid = _Grid(figure, width, height)
    grid.draw_heading(0.25, 0, "image")
    for column, epoch in enumerate(epochs):
        left = 0.25 + _CELL + 0.2 + column * (group + 0.2)
        grid.draw_heading(left, 1, f"epoch {epoch + 1}")
        for view, first in enumerate(rows[0].views[column]):
            view_left = left + view * (_CELL + _GAP)
            grid.draw_heading(view_left, 0, f"view {view + 1}, {first.shape[0]} px")
            for index, row in enumerate(rows):
                grid.draw_image(view_left, index, row.views[column][view])
    for index, row in enumerate(rows):
        grid.draw_image(0.25, index, row.image)
        grid.draw_caption(0.25, index, row.caption)
    return figure


class _Grid:
    """Draws into a figure, at inches from the left and rows from the top."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self._figure, self._width, self._height = figure, width, height

    def draw_heading(self, left: float, level: int, text: str) -> None:
        """Draw text above the first row; level 1 is above level 0."""
        size, colour = (10.5, INK) if level else (8.5, GREY)
        self._draw_text(left, 1.27 - 0.2 * level, text, size, colour)

    def draw_caption(self, left: float, row: int, text: str) -> None:
        self._draw_text(left, self._top(row) + _CELL + 0.15, text, 8, GREY)

    def draw_image(self, left: float, row: int, image: Image) -> None:
        bottom = self._height - self._top(row) - _CELL
        box = (left / self._width, bottom / self._height, _CELL / self._width, _CELL / self._height)
        axes = self._figure.add_axes(box)
        axes.imshow(image, interpolation="nearest" if max(image.shape) <= _MAX_NEAREST else "antialiased")
        axes.axis("off")

    def _top(self, row: int) -> float:
        return 1.33 + row * (_CELL + _CAPTION)

    def _draw_text(self, left: float, top: float, text: str, size: float, colour: str) -> None:
        position = left / self._width, 1 - top / self._height
        self._figure.text(*position, format_line(text, 60), fontsize=size, color=colour, va="baseline")

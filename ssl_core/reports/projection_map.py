"""The maps of a projection: images as points coloured by class, and as themselves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ssl_core.data.sampling import Rows
from ssl_core.reports.style import GREY, LINE, plain_line, titled_figure

THUMBNAIL = 48  # pixels: the side of an image on the sheet
_FRAME = 3  # pixels around it, in the colour of its class
_CELLS = 36  # along each side of the sheet, at most
_PETROFF = mpl.color_sequences["petroff10"]  # told apart by whoever sees colour differently (arXiv:2107.02270)
_GREYS = (3, 8)  # last, as what is unlabelled is grey too
_COLOURS = tuple(_PETROFF[place] for place in (0, 1, 2, 4, 9, 5, 6, 7, *_GREYS))
_MARKERS = "os^DvPX<>*"  # from the eleventh class on colours come again, with another shape
_UNLABELLED = "#c4cad1"
_MOST_NAMED = 40  # classes that the legend names
_NAMES = {"tsne": "t-SNE", "pca": "PCA", "umap": "UMAP"}

Places = NDArray[np.float32]  # N×2


@dataclass(frozen=True)
class Panel:
    places: Places
    about: Mapping[str, Any]  # the method's own figures


@dataclass(frozen=True)
class _Group:
    """The points of one class, or of none."""

    name: str
    mask: NDArray[np.bool_]
    colour: Any
    marker: str


def scatter(panels: Mapping[str, Panel], labels: Rows, classes: Sequence[str], images: str, sentence: str) -> Figure:
    """Draw a panel for each method (a name and its map), coloured by `labels` (-1 is unlabelled)."""
    groups = list(_groups(labels, classes))
    names = ", ".join(_NAMES[name] for name in panels)
    side, legend = 6.0, _legend_height(groups, 0.4 + 6.2 * len(panels))
    width, height = 0.4 + (side + 0.2) * len(panels), 1.25 + side + 0.5 + legend
    figure = titled_figure(width, height, f"{names}: {images}", _note(sentence, groups))
    for place, (name, panel) in enumerate(panels.items()):
        left, bottom = 0.4 + place * (side + 0.2), 0.5 + legend
        axes = figure.add_axes((left / width, bottom / height, (side - 0.3) / width, side / height))
        _points(axes, panel.places, groups)
        _name(axes, name, panel.about)
    _legend(figure, groups, width, height)
    return figure


def sheet(
    method: str,
    places: Places,
    thumbnails: NDArray[np.uint8],
    labels: Rows,
    classes: Sequence[str],
    images: str,
    sentence: str,
) -> Figure:
    """Draw the images (uint8 N×T×T×3) at their places, as many as lie side by side."""
    groups = list(_groups(labels, classes))
    cells = _cells(places)
    side = 11.0
    legend = _legend_height(groups, side + 0.5)
    width, height = side + 0.5, side + 1.25 + 0.2 + legend
    note = f"{sentence} Where several images meet, one is shown."
    note += "" if _unlabelled(groups) else " Frames have the colour of the class."
    title = f"{_NAMES[method]} with the images themselves: {len(cells):,} of {images}"
    figure = titled_figure(width, height, title, note)
    axes = figure.add_axes((0.25 / width, (0.1 + legend) / height, side / width, side / height))
    axes.imshow(_canvas(cells, thumbnails, groups), interpolation="antialiased")
    axes.axis("off")
    _legend(figure, groups, width, height)
    return figure


def _groups(labels: Rows, classes: Sequence[str]) -> Iterator[_Group]:
    """What is unlabelled first, so that it lies at the bottom; then the classes that there are."""
    if (labels < 0).any():
        yield _Group("without a label", labels < 0, _UNLABELLED, "o")
    for label in sorted({*labels.tolist()} - {-1}):
        name = classes[label] if label < len(classes) else str(label)
        marker = _MARKERS[label // len(_COLOURS) % len(_MARKERS)]
        yield _Group(plain_line(name, 24), labels == label, _COLOURS[label % len(_COLOURS)], marker)


def _note(sentence: str, groups: Sequence[_Group]) -> str:
    colours = "There are no labels to colour by." if _unlabelled(groups) else "Colour is the class."
    return f"{sentence} Images that lie together look alike to the model. {colours}"


def _unlabelled(groups: Sequence[_Group]) -> bool:
    return len(groups) == 1 and groups[0].colour == _UNLABELLED


def _points(axes: Axes, places: Places, groups: Sequence[_Group]) -> None:
    size = float(np.clip(30_000 / len(places), 6, 40))
    for group in groups:
        x, y = places[group.mask].T
        axes.scatter(x, y, s=size, color=group.colour, marker=group.marker, alpha=0.8, linewidths=0)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=LINE)


def _name(axes: Axes, method: str, about: Mapping[str, Any]) -> None:
    if method == "pca":
        axes.set_title("PCA: the two directions of most variance")
        first, second = about["explained_variance"]
        axes.set_xlabel(f"first component: {first:.0%} of the variance")
        axes.set_ylabel(f"second component: {second:.0%} of the variance")
        return
    settings = ", ".join(f"{name} {value:g}" for name, value in about.items())
    axes.set_title(f"{_NAMES[method]}: neighbours stay neighbours ({settings})")
    axes.set_xlabel("axes have no unit; only who is near to whom counts")


def _columns(width: float) -> int:
    return max(1, int((width - 0.5) / 1.9))


def _named(groups: Sequence[_Group]) -> Sequence[_Group]:
    return groups if len(groups) <= _MOST_NAMED else groups[: _MOST_NAMED - 1]


def _legend_height(groups: Sequence[_Group], width: float) -> float:
    """Inches, with room for a line on what is not named."""
    return 0.25 + 0.21 * -(-(len(_named(groups)) + 1) // _columns(width))


def _legend(figure: Figure, groups: Sequence[_Group], width: float, height: float) -> None:
    named = _named(groups)
    handles = [
        Line2D([], [], linestyle="", marker=group.marker, color=group.colour, markersize=7, label=group.name)
        for group in named
    ]
    if len(named) < len(groups):
        rest = f"and {len(groups) - len(named)} more"
        handles.append(Line2D([], [], linestyle="", color=GREY, label=rest))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.15 / width, 0.05 / height),
        ncols=_columns(width),
        fontsize=9.5,
        handletextpad=0.2,
        columnspacing=1.2,
        borderpad=0.2,
    )


def _cells(places: Places) -> dict[tuple[int, int], int]:
    """Cells (line, column) of the sheet, each with the image that lies nearest to its middle."""
    count = min(_CELLS, max(4, round(1.25 * len(places) ** 0.5)))
    low, high = places.min(0), places.max(0)
    spot = (places - low) / np.maximum(high - low, 1e-9) * count
    cell = np.minimum(spot.astype(int), count - 1)
    distance = np.square(spot - cell - 0.5).sum(1)
    nearest: dict[tuple[int, int], int] = {}
    for place in np.argsort(distance, kind="stable").tolist():
        nearest.setdefault((count - 1 - int(cell[place, 1]), int(cell[place, 0])), place)
    return nearest


def _canvas(
    cells: Mapping[tuple[int, int], int], thumbnails: NDArray[np.uint8], groups: Sequence[_Group]
) -> NDArray[np.uint8]:
    step = THUMBNAIL + 2 * _FRAME + 2
    lines, columns = (max(cell[axis] for cell in cells) + 1 for axis in (0, 1))
    canvas = np.full((lines * step, columns * step, 3), 255, np.uint8)
    colours = np.zeros((len(thumbnails), 3), np.uint8)
    for group in groups:
        colours[group.mask] = np.round(np.array(mpl.colors.to_rgb(group.colour)) * 255)
    for (line, column), place in cells.items():
        top, left = line * step + 1, column * step + 1
        canvas[top : top + step - 2, left : left + step - 2] = colours[place]
        inner = slice(top + _FRAME, top + _FRAME + THUMBNAIL), slice(left + _FRAME, left + _FRAME + THUMBNAIL)
        canvas[inner] = thumbnails[place]
    return canvas

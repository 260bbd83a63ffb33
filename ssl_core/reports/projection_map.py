"""Figures of a 2-D projection: a scatter plot coloured by class, and a map of thumbnails."""

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
from ssl_core.reports.style import GREY, LINE, create_figure, format_line

THUMBNAIL = 48  # side of a thumbnail, pixels
_FRAME = 3  # width of its frame in the colour of the class, pixels
_MAX_CELLS = 36  # thumbnails along each side of the map
_PETROFF = mpl.color_sequences["petroff10"]  # accessible under colour vision deficiency (arXiv:2107.02270)
_GREYS = (3, 8)  # last, since unlabelled images are grey too
_COLOURS = tuple(_PETROFF[index] for index in (0, 1, 2, 4, 9, 5, 6, 7, *_GREYS))
_MARKERS = "os^DvPX<>*"  # colours repeat from the eleventh class on, with another marker
_UNLABELLED = "#c4cad1"
_MAX_LEGEND = 40  # classes in the legend, at most
_NAMES = {"tsne": "t-SNE", "pca": "PCA", "umap": "UMAP"}

Points = NDArray[np.float32]  # N×2


@dataclass(frozen=True)
class Panel:
    """A projection and the settings or statistics of its method."""

    points: Points
    details: Mapping[str, Any]


@dataclass(frozen=True)
class _Group:
    """The points of one class, or the unlabelled ones."""

    name: str
    mask: NDArray[np.bool_]
    colour: Any
    marker: str


def draw_scatter(panels: Mapping[str, Panel], labels: Rows, classes: Sequence[str], images: str, model: str) -> Figure:
    """Return a figure with a panel for each method, coloured by `labels` (-1 is unlabelled).

    images: the title's description of the images; model: the note's of the model.
    """
    groups = list(_build_groups(labels, classes))
    names = ", ".join(_NAMES[name] for name in panels)
    side, legend = 6.0, _compute_legend_height(groups, 0.4 + 6.2 * len(panels))
    width, height = 0.4 + (side + 0.2) * len(panels), 1.25 + side + 0.5 + legend
    figure = create_figure(width, height, f"{names}: {images}", _build_note(model, groups))
    for column, (name, panel) in enumerate(panels.items()):
        left, bottom = 0.4 + column * (side + 0.2), 0.5 + legend
        axes = figure.add_axes((left / width, bottom / height, (side - 0.3) / width, side / height))
        _draw_points(axes, panel.points, groups)
        _label_axes(axes, name, panel.details)
    _draw_legend(figure, groups, width, height)
    return figure


def draw_thumbnails(
    method: str,
    points: Points,
    thumbnails: NDArray[np.uint8],
    labels: Rows,
    classes: Sequence[str],
    images: str,
    model: str,
) -> Figure:
    """Return a figure of the thumbnails, uint8 N×T×T×3, at their points, without overlap."""
    groups = list(_build_groups(labels, classes))
    cells = _assign_cells(points)
    side = 11.0
    legend = _compute_legend_height(groups, side + 0.5)
    width, height = side + 0.5, side + 1.25 + 0.2 + legend
    note = f"{model} Of images that overlap one is shown."
    note += "" if _is_unlabelled(groups) else " Frames have the colour of the class."
    title = f"{_NAMES[method]} with thumbnails: {len(cells):,} of {images}"
    figure = create_figure(width, height, title, note)
    axes = figure.add_axes((0.25 / width, (0.1 + legend) / height, side / width, side / height))
    axes.imshow(_draw_canvas(cells, thumbnails, groups), interpolation="antialiased")
    axes.axis("off")
    _draw_legend(figure, groups, width, height)
    return figure


def _build_groups(labels: Rows, classes: Sequence[str]) -> Iterator[_Group]:
    """Yield the unlabelled images first, so that they are drawn below, then the classes present."""
    if (labels < 0).any():
        yield _Group("without a label", labels < 0, _UNLABELLED, "o")
    for label in sorted({*labels.tolist()} - {-1}):
        name = classes[label] if label < len(classes) else str(label)
        marker = _MARKERS[label // len(_COLOURS) % len(_MARKERS)]
        yield _Group(format_line(name, 24), labels == label, _COLOURS[label % len(_COLOURS)], marker)


def _build_note(model: str, groups: Sequence[_Group]) -> str:
    colours = "The images have no labels." if _is_unlabelled(groups) else "Colour is the class."
    return f"{model} Images with similar features are close. {colours}"


def _is_unlabelled(groups: Sequence[_Group]) -> bool:
    return len(groups) == 1 and groups[0].colour == _UNLABELLED


def _draw_points(axes: Axes, points: Points, groups: Sequence[_Group]) -> None:
    size = float(np.clip(30_000 / len(points), 6, 40))
    for group in groups:
        x, y = points[group.mask].T
        axes.scatter(x, y, s=size, color=group.colour, marker=group.marker, alpha=0.8, linewidths=0)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=LINE)


def _label_axes(axes: Axes, method: str, details: Mapping[str, Any]) -> None:
    if method == "pca":
        axes.set_title("PCA: the two directions of most variance")
        first, second = details["explained_variance"]
        axes.set_xlabel(f"first component: {first:.0%} of the variance")
        axes.set_ylabel(f"second component: {second:.0%} of the variance")
        return
    settings = ", ".join(f"{name} {value:g}" for name, value in details.items())
    axes.set_title(f"{_NAMES[method]} ({settings})")
    axes.set_xlabel("axes have no unit; only neighbourhoods are meaningful")


def _count_columns(width: float) -> int:
    return max(1, int((width - 0.5) / 1.9))


def _select_legend(groups: Sequence[_Group]) -> Sequence[_Group]:
    return groups if len(groups) <= _MAX_LEGEND else groups[: _MAX_LEGEND - 1]


def _compute_legend_height(groups: Sequence[_Group], width: float) -> float:
    """Return inches, with a line for the classes not in the legend."""
    return 0.25 + 0.21 * -(-(len(_select_legend(groups)) + 1) // _count_columns(width))


def _draw_legend(figure: Figure, groups: Sequence[_Group], width: float, height: float) -> None:
    listed = _select_legend(groups)
    handles = [
        Line2D([], [], linestyle="", marker=group.marker, color=group.colour, markersize=7, label=group.name)
        for group in listed
    ]
    if len(listed) < len(groups):
        rest = f"and {len(groups) - len(listed)} more"
        handles.append(Line2D([], [], linestyle="", color=GREY, label=rest))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.15 / width, 0.05 / height),
        ncols=_count_columns(width),
        fontsize=9.5,
        handletextpad=0.2,
        columnspacing=1.2,
        borderpad=0.2,
    )


def _assign_cells(points: Points) -> dict[tuple[int, int], int]:
    """Return the non-empty cells (row, column) of the map, each with the image nearest to its centre."""
    count = min(_MAX_CELLS, max(4, round(1.25 * len(points) ** 0.5)))
    low, high = points.min(0), points.max(0)
    position = (points - low) / np.maximum(high - low, 1e-9) * count
    cell = np.minimum(position.astype(int), count - 1)
    distance = np.square(position - cell - 0.5).sum(1)
    nearest: dict[tuple[int, int], int] = {}
    for image in np.argsort(distance, kind="stable").tolist():
        nearest.setdefault((count - 1 - int(cell[image, 1]), int(cell[image, 0])), image)
    return nearest


def _draw_canvas(
    cells: Mapping[tuple[int, int], int], thumbnails: NDArray[np.uint8], groups: Sequence[_Group]
) -> NDArray[np.uint8]:
    step = THUMBNAIL + 2 * _FRAME + 2
    rows, columns = (max(cell[axis] for cell in cells) + 1 for axis in (0, 1))
    canvas = np.full((rows * step, columns * step, 3), 255, np.uint8)
    colours = np.zeros((len(thumbnails), 3), np.uint8)
    for group in groups:
        colours[group.mask] = np.round(np.array(mpl.colors.to_rgb(group.colour)) * 255)
    for (row, column), image in cells.items():
        top, left = row * step + 1, column * step + 1
        canvas[top : top + step - 2, left : left + step - 2] = colours[image]
        inner = slice(top + _FRAME, top + _FRAME + THUMBNAIL), slice(left + _FRAME, left + _FRAME + THUMBNAIL)
        canvas[inner] = thumbnails[image]
    return canvas

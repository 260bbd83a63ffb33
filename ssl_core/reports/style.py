"""A figure in the house's style, drawn without a screen, and the bytes of its file."""

import io
import textwrap
import warnings
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, GREY, LINE, PAPER = "#22272e", "#59636e", "#d0d7de", "#ffffff"
_DPI = 150
_LETTERS_AN_INCH = 13  # of the note
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "axes.edgecolor": LINE,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eaeef2",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "svg.hashsalt": "twoviews",  # the same picture has the same bytes
}


def style() -> Any:
    """The context in which a figure is made and written."""
    return mpl.rc_context(_STYLE)


def titled_figure(width: float, height: float, title: str, note: str) -> Figure:
    """Return an empty figure, inches wide and high, with a title and a note of one line or two below it.

    They take the uppermost 0.9 inches.
    """
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    left = 0.25 / width
    figure.text(left, 1 - 0.18 / height, title, fontsize=14, fontweight="bold", va="top")
    lines = textwrap.fill(note, int(_LETTERS_AN_INCH * (width - 0.5)))
    figure.text(left, 1 - 0.50 / height, lines, fontsize=9.5, color=GREY, va="top")
    return figure


def plain_line(text: str, most: int) -> str:
    """Return somebody's text as one line that is drawn as it stands, with at most so many characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    short = line if len(line) <= most else line[: most - 1] + "…"
    return short.replace("$", r"\$")


def to_bytes(figure: Figure, form: str) -> bytes:
    """Return the bytes of the figure as `png` or `svg`."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a name may be in any script: boxes do
        figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
    return file.getvalue()

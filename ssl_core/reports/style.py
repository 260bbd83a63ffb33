"""Matplotlib style of all figures: colours, fonts, titles, and rendering to bytes without a display."""

import io
import textwrap
import warnings
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, GREY, LINE, PAPER = "#22272e", "#59636e", "#d0d7de", "#ffffff"
SERIES_COLOURS = BLUE, ORANGE = "#0b6bcb", "#d9622b"
_DPI = 150
_CHARACTERS_PER_INCH = 13  # of the note
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
    "svg.hashsalt": "twoviews",  # makes SVG files reproducible
}


def figure_style() -> Any:
    """Return the context in which figures are drawn and rendered."""
    return mpl.rc_context(_STYLE)


def create_figure(width: float, height: float, title: str, note: str) -> Figure:
    """Return an empty figure with a title and below it a note of up to two lines, in the top 0.9 inches.

    width, height: inches.
    """
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    left = 0.25 / width
    figure.text(left, 1 - 0.18 / height, title, fontsize=14, fontweight="bold", va="top")
    lines = textwrap.fill(note, int(_CHARACTERS_PER_INCH * (width - 0.5)))
    figure.text(left, 1 - 0.50 / height, lines, fontsize=9.5, color=GREY, va="top")
    return figure


def format_line(text: str, max_length: int) -> str:
    """Return any text as one line of at most `max_length` characters, with matplotlib's markup escaped."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    short = line if len(line) <= max_length else line[: max_length - 1] + "…"
    return short.replace("$", r"\$")


def to_bytes(figure: Figure, form: str) -> bytes:
    """Return the bytes of the figure as `png` or `svg`."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing", UserWarning
        )  # a name may be in a script that the font lacks
        figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
    return file.getvalue()

"""How all figures look, and how they are written: for print, safe for the colour-blind, readable in grey."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import Formatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.fonts import FAMILY, pdf_families
from lmsat_plugin.files import replacing
from lmsat_plugin.outside_text import printable

STYLE: dict[Any, Any] = {
    "figure.dpi": 200,
    "figure.titlesize": 10,
    "figure.constrained_layout.w_pad": 0.08,
    "font.family": "sans-serif",
    "font.sans-serif": [FAMILY],
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 5,
    "lines.markeredgecolor": "white",
    "lines.markeredgewidth": 0.4,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "legend.borderaxespad": 0,
    # Names from outside may hold dollar signs.
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "lmsat",
}
PANEL = 3.5, 2.7
"""Width and height of a panel with its labels, in inches; its legend comes below."""
PALETTE = ("#004488", "#ddaa33", "#bb5566", "#000000", "#44aa99", "#88ccee", "#aa4499", "#999933")
"""Paul Tol's "high contrast", which differ in grey, too, and then some of his "muted"."""
ON_DARK = ("#77aadd", "#eecc66", "#ee8899", "#ffffff", "#44bb99", "#99ddff", "#cc99cc", "#bbcc33")
"""The colours of `PALETTE` on a dark ground."""
MARKERS = ("o", "s", "^", "D", "v", "X", "p")
GREY = "#666666"
BAND: dict[str, Any] = {"alpha": 0.2, "linewidth": 0}
"""The look of a band: one standard error, or an interval."""
REFERENCE: dict[str, Any] = {"linestyle": (0, (6, 3)), "linewidth": 0.8}
Looks = dict[str, dict[str, Any]]
"""What `looks_of` returns: arguments of matplotlib's ``plot``, by name."""
styled = rc_context(STYLE)
"""A decorator of functions that draw a figure."""
ABREAST = 3
"""The most panels beside each other."""
# No file states its date, so that equal figures make equal files.
_FORMATS: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
LETTERS_WIDE = 38
"""How many letters of a legend's line fit below a panel."""


def check_suffix(path: Path) -> None:
    """Raise `LmsatError` for a file name whose format `write_figure` does not know."""
    if path.suffix.lower() not in _FORMATS:
        raise LmsatError(f"{path} is not a figure's file name: give one that ends in {', '.join(_FORMATS)}")


def write_figure(figure: Figure, path: Path, *, widest: float = inf) -> None:
    """Write a figure in the format that the file's name ends in. A failed write leaves no file.

    Args:
        figure: The figure.
        path: Its file.
        widest: The most pixels in a line of a PNG.

    Raises:
        LmsatError: For an unknown format, and for a folder that cannot be written.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    for text in figure.findobj(Text):
        # An SVG file with a control character is not XML.
        if (shown := printable(text.get_text(), keep="\n")) != text.get_text():
            text.set_text(shown)
    # Text of an SVG stays text: where the font is missing, a browser takes another one.
    families = pdf_families() if suffix == ".pdf" else [FAMILY, "sans-serif"] if suffix == ".svg" else [FAMILY]
    with rc_context({**STYLE, "font.sans-serif": families}), replacing(path) as temporary:
        dpi = min(STYLE["figure.dpi"], widest / figure.get_size_inches()[0])
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=_FORMATS[suffix])


def looks_of(names: Iterable[str], among: Iterable[str] = ()) -> Looks:
    """Return a colour and a marker for each name.

    Names that figures show ``among`` the same others look alike in all these figures, if the others are no more than
    the colours of `PALETTE`.
    """
    names, others = list(names), list(among)
    order = dict.fromkeys([*(others if len(others) <= len(PALETTE) else ()), *names])
    looks = {
        name: {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
        for index, name in enumerate(order)
    }
    return {name: looks[name] for name in names}


def legend_below(axes: Axes, handles: Sequence[Artist]) -> int:
    """Put a legend below the label of the x axis. Return its number of lines."""
    labels = [wrapped(str(handle.get_label()), LETTERS_WIDE) for handle in handles]
    if _PLACE.get() is not None:
        axes.legend(handles, labels, loc="best")
        return 0
    below = ScaledTranslation(0, -0.42, axes.figure.dpi_scale_trans)
    place = {"bbox_to_anchor": (0, 0), "bbox_transform": axes.transAxes + below}
    axes.legend(handles, labels, loc="upper left", **place).set_in_layout(False)
    return sum(label.count("\n") + 1 for label in labels)


def grid_of(count: int) -> tuple[int, int]:
    """Return the rows and columns of so many panels."""
    columns = max(1, min(ABREAST, count))
    return -(-count // columns), columns


_PLACE: ContextVar[Axes | None] = ContextVar("_PLACE", default=None)
"""The panel of a caller's figure into which figures are drawn; None for a figure of their own."""


@contextmanager
def drawing_in(axes: Axes) -> Iterator[None]:
    """Have figures drawn into a panel of the caller's. Raises `LmsatError` for one that is no part of a grid."""
    if axes.get_subplotspec() is None:
        raise LmsatError("ax is no panel of a grid, whose place can be shared: make it with plt.subplots()")
    token = _PLACE.set(axes)
    try:
        yield
    finally:
        _PLACE.reset(token)


def top_figure(axes: Axes) -> Figure:
    """Return the figure that a panel is of, whatever lies between them."""
    figure: Any = axes.figure
    while not isinstance(figure, Figure):
        figure = figure.figure
    return figure


class _Panel:
    """A panel of the caller's, for what is drawn as if it were a figure of its own."""

    def __init__(self, axes: Axes) -> None:
        self.axes = [axes]

    def __getattr__(self, name: str) -> Any:
        return getattr(top_figure(self.axes[0]), name)

    def legend(self, handles: Any, labels: Any, **options: Any) -> Any:
        """Put the legend into the panel."""
        return self.axes[0].legend(handles, labels, loc="best")


def new_figure() -> Figure:
    """Return an empty figure, or the place of the panel into which the caller has things drawn."""
    axes = _PLACE.get()
    if axes is None:
        return Figure(layout="constrained")
    top, place = axes.figure, axes.get_subplotspec()
    assert place is not None
    axes.remove()
    part: Any = top.add_subfigure(place)
    return part


def subplots(count: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its empty panels, row by row."""
    if count == 1 and (axes := _PLACE.get()) is not None:
        panel: Any = _Panel(axes)
        return panel, [axes]
    figure = new_figure()
    return figure, [figure.add_subplot(*grid_of(count), place) for place in range(1, count + 1)]


def lowest_panels(figure: Figure) -> list[Axes]:
    """Return the panels of the lowest row of `subplots`' figure."""
    rows, columns = grid_of(len(figure.axes))
    return figure.axes[(rows - 1) * columns :]


def resize(figure: Figure, lines: int, *, size: tuple[float, float] | None = None, padding: float = 0.5) -> None:
    """Set a figure's size, with room below for a legend. The figure has no colour bar yet.

    Args:
        figure: With all its panels.
        lines: Of the legend.
        size: Width and height without the legend, in inches; by default those of the panels, `PANEL` each.
        padding: Of the legend, in lines.
    """
    if not isinstance(figure, Figure):
        return  # its size is the caller's
    rows, columns = grid_of(len(figure.axes))
    width, height = size or (PANEL[0] * columns, PANEL[1] * rows)
    legend = (padding + 1.5 * lines) * STYLE["legend.fontsize"] / 72
    height += legend
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained", rect=(0, legend / height, 1, 1 - legend / height))


def finish(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend below the first panel of the lowest row of `subplots`' figure, and set the figure's size."""
    resize(figure, legend_below(lowest_panels(figure)[0], handles))


def wrapped(text: str, width: int) -> str:
    """Return a text broken into lines of at most ``width`` letters."""
    return "\n".join(textwrap.wrap(text, width))


def log_axis(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with few ticks and labels such as 2e10. Call it after the data are drawn."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = axes.dataLim.intervalx if name == "x" else axes.dataLim.intervaly
    (axes.set_xscale if name == "x" else axes.set_yscale)("log")
    narrow = low > 0 and high < 100 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6))
    axis.set_major_formatter(ShortNumbers())
    axis.set_minor_locator(NullLocator())


def short_number(value: float, digits: int = 2) -> str:
    """Return a number in few letters, such as 2e10; those from 10,000 on with so many digits."""
    return f"{value:g}" if value < 1e4 else f"{value:.{digits}g}".replace("e+", "e").replace("e0", "e")


class ShortNumbers(Formatter):
    """The labels of an axis in few letters, as `short_number`, with as many digits as tell the ticks apart."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        """Return the label of one tick."""
        del pos
        return short_number(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Return the labels of all ticks of an axis."""
        for digits in range(2, 16):
            labels = [short_number(value, digits) for value in values]
            if len(set(labels)) == len(set(values)):
                break
        return labels

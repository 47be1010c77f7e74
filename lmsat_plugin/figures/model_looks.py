"""How models are told apart in a figure: a few by colour and marker, many by a colour for their size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from lmsat_plugin.figures.style import Looks, legend_below, looks_of, resize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

    from lmsat_plugin.analysis.checkpoint_values import Sizes

FEW = 8
"""So many models have a line each in the legend."""
SEQUENTIAL = ListedColormap(colormaps["cividis"](np.linspace(0, 0.92, 256)))
"""Safe for the colour-blind, and rising in grey; without its end, which is too light for lines."""
_MOST_NAMES, _MOST_MARKERS = 16, 30
_LETTERS = 24
_BAR, _NAMES = 0.9, 2.0
"""Inches for a colour bar with its labels: numbers, or names."""
_FRACTION = 0.5


def size_words(n_params: float) -> str:
    """Return a number of parameters as people say it: 14M, 1.4B."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n_params >= 0.9995 * unit:
            return f"{n_params / unit:.3g}{letter}"
    return f"{n_params:.3g}"


class ModelLooks:
    """The colours and markers of models, and what explains them."""

    def __init__(self, sizes: Sizes) -> None:
        """Choose the looks: each its own for `FEW` models, else by size, or in order where sizes do not tell."""
        self.sizes = sizes
        self.many = len(sizes) > FEW
        known = [size for size in sizes.values() if size is not None]
        self.by_size = len(known) == len(sizes) and max(known) > min(known)
        self.looks: Looks = looks_of(sizes)
        self.explained: list[Artist] = [Line2D([], [], label=name, **self.looks[name]) for name in sizes]
        if self.many:
            self.explained = []
            norm = LogNorm(min(known), max(known)) if self.by_size else Normalize(0, len(sizes) - 1)
            self.colours = ScalarMappable(norm, SEQUENTIAL)
            numbers = known if self.by_size else range(len(sizes))
            self.looks = {
                name: {"color": SEQUENTIAL(norm(number)), "marker": "o"}
                for name, number in zip(sizes, numbers, strict=True)
            }

    def line(self, model: str, points: int) -> dict[str, Any]:
        """Return the look of a line through so many points, a few of which have markers where models are few."""
        marker = "none" if self.many and points > 1 else self.looks[model]["marker"]
        every = -(-points // _MOST_MARKERS)
        return {**self.looks[model], "marker": marker, "markersize": 3.5, "markevery": every}

    def finish(
        self,
        figure: Figure,
        lowest: Sequence[Axes],
        marks: Sequence[Artist] = (),
        rows: int = 1,
        columns: int = 0,
    ) -> None:
        """Explain models and marks below the panels, or models by a colour bar beside them, and size the figure.

        ``lowest`` are the panels of the lowest row, of ``columns`` where that is not full.
        """
        if self.many or len(lowest) == 1:
            lines = legend_below(lowest[0], [*self.explained, *marks])
        else:
            lines = max(legend_below(lowest[0], self.explained), legend_below(lowest[1], marks))
        resize(figure, columns or len(lowest), lines, rows)
        self.add_colour_bar(figure)

    def add_colour_bar(self, figure: Figure) -> None:
        """Explain many models beside all panels of a figure that has its size, which grows; few need none."""
        if not self.many:
            return
        bar = colour_bar(figure, self.colours, _BAR if self.by_size else _NAMES)
        if self.by_size:
            low, high = self.colours.get_clim()
            subs = (1, 2, 5) if high < 100 * low else (1, 3) if high < 1000 * low else (1,)
            bar.ax.yaxis.set_major_locator(LogLocator(subs=subs))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size_words(value)))
            bar.set_label("parameters")
        else:
            names = list(self.sizes)
            ticks = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_NAMES)).round()).astype(
                int
            )
            bar.ax.yaxis.set_major_locator(FixedLocator(ticks.tolist()))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda index, _: shortened(names[round(index)])))
            bar.ax.tick_params(labelsize=6)


def colour_bar(figure: Figure, colours: ScalarMappable, inches: float) -> Colorbar:
    """Put a colour bar beside all panels of a figure that has its size, which grows by so many inches."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + inches, height)
    bar = figure.colorbar(colours, ax=figure.axes, aspect=30, pad=0.02, fraction=_FRACTION / (width + inches))
    bar.outline.set_linewidth(0.4)
    bar.ax.grid(False)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    return bar


def shortened(name: str) -> str:
    """Return a name's end, which tells models of one family apart."""
    return name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"


def spread(sizes: Mapping[str, float | None], most: int) -> list[str]:
    """Return so many of the models, evenly spread over their order, the first and the last among them."""
    names = list(sizes)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round()).astype(int)
    return [names[index] for index in chosen]

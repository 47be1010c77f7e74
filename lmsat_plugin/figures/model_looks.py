"""How a figure tells models apart: a few by colour and marker, many by a colour for their size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from lmsat_plugin.analysis.checkpoint_values import Sizes, spread
from lmsat_plugin.figures.style import Looks, legend_below, looks_of, lowest_panels, resize

FEW = 8
"""Up to this number, each model has a line in the legend."""
SEQUENTIAL = ListedColormap(colormaps["cividis"](np.linspace(0, 0.92, 256)))
"""Safe for the colour-blind, and rising in grey. Its end is left out: it is too light for lines."""
_MOST_NAMES, _MOST_MARKERS = 16, 30
_LETTERS = 24
_BAR, _NAMES = 0.9, 2.0
"""Inches for a colour bar with its labels: numbers, or names."""
_FRACTION = 0.5


def size_words(n_params: float) -> str:
    """Return a number of parameters in short, such as 14M or 1.4B."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n_params >= 0.9995 * unit:
            return f"{n_params / unit:.3g}{letter}"
    return f"{n_params:.3g}"


class ModelLooks:
    """The colours and markers of the models that a figure draws, and what explains them.

    Figures that are told of the same models draw each of them alike, as long as few are told of or many are drawn.
    """

    def __init__(self, sizes: Sizes, drawn: Iterable[str] | None = None) -> None:
        """Choose the looks: a colour and a marker each for `FEW` models, else a colour by size or by order.

        Args:
            sizes: The parameters of all models that figures show beside each other.
            drawn: The models of this figure, in any order; by default all.
        """
        chosen = set(sizes if drawn is None else drawn)
        self.sizes: Sizes = {name: size for name, size in sizes.items() if name in chosen}
        """Of the models that are drawn, in the order of ``sizes``."""
        self.looks: Looks = looks_of(self.sizes, sizes)
        self.many = len(self.sizes) > FEW
        if self.many:
            known = [size for size in sizes.values() if size is not None]
            self.by_size = len(known) == len(sizes) and max(known) > min(known)
            norm = LogNorm(min(known), max(known)) if self.by_size else Normalize(0, len(sizes) - 1)
            self.colours = ScalarMappable(norm, SEQUENTIAL)
            self._names = list(sizes)
            numbers = zip(sizes, known if self.by_size else range(len(sizes)), strict=True)
            self.looks = {
                name: {"color": SEQUENTIAL(norm(number)), "marker": "o"} for name, number in numbers if name in chosen
            }

    def line(self, model: str, points: int) -> dict[str, Any]:
        """Return the look of a line through ``points`` points; where models are few, some points have markers."""
        marker = "none" if self.many and points > 1 else self.looks[model]["marker"]
        every = -(-points // _MOST_MARKERS)
        return {**self.looks[model], "marker": marker, "markersize": 3.5, "markevery": every}

    def handles(self, **look: Any) -> list[Artist]:
        """Return the models' lines for a legend; none for many models, which a colour bar explains."""
        if self.many:
            return []
        return [Line2D([], [], label=name, **{**own, **look}) for name, own in self.looks.items()]

    def finish(self, figure: Figure, marks: Sequence[Artist] = ()) -> None:
        """Add the legend of models and marks, or a colour bar for many models. Set the size of `subplots`' figure."""
        lowest = lowest_panels(figure)
        if self.many or len(lowest) == 1:
            lines = legend_below(lowest[0], [*self.handles(), *marks])
        else:
            lines = max(legend_below(lowest[0], self.handles()), legend_below(lowest[1], marks))
        resize(figure, lines)
        self.add_colour_bar(figure)

    def add_colour_bar(self, figure: Figure) -> None:
        """Add a colour bar beside all panels where models are many. The figure must have its size, which grows."""
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
            names = self._names
            bar.ax.yaxis.set_major_locator(FixedLocator(spread(range(len(names)), _MOST_NAMES)))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda index, _: shortened(names[round(index)])))
            bar.ax.tick_params(labelsize=6)


def colour_bar(figure: Figure, colours: ScalarMappable, inches: float) -> Colorbar:
    """Add a colour bar beside all panels. The figure must have its size, which grows by ``inches``."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + inches, height)
    bar = figure.colorbar(colours, ax=figure.axes, aspect=30, pad=0.02, fraction=_FRACTION / (width + inches))
    bar.outline.set_linewidth(0.4)
    bar.ax.grid(False)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    return bar


def shortened(name: str) -> str:
    """Return the end of a long name: the end tells models of one family apart."""
    return name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"

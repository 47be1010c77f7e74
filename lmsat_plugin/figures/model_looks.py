"""How a figure tells models apart: by colour, marker and line style, or many of different sizes by a colour for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lmsat_plugin.analysis.checkpoint_values import SizeInName, Sizes
from lmsat_plugin.figures.style import ON_DARK, PALETTE, Looks, legend_below, looks_of, lowest_panels, resize
from lmsat_plugin.results.checkpoint_names import without_parameters
from lmsat_plugin.results.training_order import natural

FEW = 8
"""Up to this number, each model has a line in the legend."""
MOST_NAMES = 12
"""The most models of a figure that names tell apart."""
SEQUENTIAL = ListedColormap(colormaps["cividis"](np.linspace(0, 0.92, 256)))
"""Safe for the colour-blind, and rising in grey. Its end is left out: it is too light for lines."""
_SEQUENTIAL_ON_DARK = ListedColormap(colormaps["cividis"](np.linspace(0.35, 1, 256)))
DASHES = ("-", "--", ":", "-.")
"""The line styles of as many models as there are colours, each."""
_MOST_MARKERS, _FEW_MARKERS = 30, 5
_LETTERS = 24
_BAR = 0.9
"""Inches for a colour bar with its labels."""
_FRACTION = 0.5


def model_pages(sizes: Sizes) -> list[list[str]]:
    """Return the models of each figure, where many share a size: a figure holds `MOST_NAMES`, families in one piece.

    A family is of models whose names differ in their sizes alone. Models that a colour for their size tells apart share
    one figure.
    """
    if len(sizes) <= MOST_NAMES or _all_differ(sizes):
        return [list(sizes)] if sizes else []
    families: dict[str, list[str]] = {}
    for name in sizes:
        families.setdefault(without_parameters(name), []).append(name)
    pages: list[list[str]] = [[]]
    for family in sorted(families, key=natural):
        own = families[family]
        count = -(-len(own) // MOST_NAMES)
        for part in range(count):
            names = own[part * len(own) // count : (part + 1) * len(own) // count]
            if pages[-1] and len(pages[-1]) + len(names) > MOST_NAMES:
                pages.append([])
            pages[-1] += names
    order = list(sizes)
    return [sorted(page, key=order.index) for page in pages]


def size_words(n_params: float) -> str:
    """Return a number of parameters in short, such as 14M or 1.4B; with a ~ where a model's name states it."""
    if isinstance(n_params, SizeInName):
        return f"~{size_words(float(n_params))}"
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n_params >= 0.9995 * unit:
            return f"{n_params / unit:.3g}{letter}"
    return f"{n_params:.3g}"


def screen_looks(sizes: Sizes) -> dict[str, tuple[str, str, int]]:
    """Return the colours of models on a light and on a dark screen, ``#rrggbb``, and the number of their line style.

    On paper they have the light colour, and the same style of `DASHES`.
    """
    models = ModelLooks(sizes)
    on_dark: dict[Any, Any] = dict(zip(PALETTE, ON_DARK, strict=True))
    norm: Any = models.colours.norm if models.by_size else None
    looks = {}
    for name, size in sizes.items():
        light = models.looks[name]["color"]
        dark: Any = _SEQUENTIAL_ON_DARK(norm(size)) if models.by_size else on_dark[light]
        looks[name] = to_hex(light), to_hex(dark), DASHES.index(models.line(name, 2)["linestyle"])
    return looks


class ModelLooks:
    """The colours, markers and line styles of the models that a figure draws, and what explains them.

    Figures that are told of the same models draw each of them alike, as long as few are told of or many are drawn.
    """

    def __init__(self, sizes: Sizes, drawn: Iterable[str] | None = None) -> None:
        """Choose the looks: a colour, a marker and a line style each, or a colour for the size, if many differ in it.

        Args:
            sizes: The parameters of all models that figures show beside each other.
            drawn: The models of this figure, in any order; by default all.
        """
        chosen = set(sizes if drawn is None else drawn)
        self.sizes: Sizes = {name: size for name, size in sizes.items() if name in chosen}
        """Of the models that are drawn, in the order of ``sizes``."""
        self.looks: Looks = looks_of(self.sizes, sizes)
        self.many = len(self.sizes) > FEW
        self._dashes = {name: DASHES[number // len(PALETTE) % len(DASHES)] for number, name in enumerate(self.sizes)}
        # Names have no order that a scale of colours could show.
        scaled = next((scale for scale in (sizes, self.sizes) if self.many and _all_differ(scale)), None)
        self.by_size = scaled is not None
        if scaled is not None:
            known = [size for size in scaled.values() if size is not None]
            norm = LogNorm(min(known), max(known))
            self.colours = ScalarMappable(norm, SEQUENTIAL)
            self._dashes = {}
            colours = {name: SEQUENTIAL(norm(size)) for name, size in scaled.items() if size is not None}
            self.looks = {name: {"color": colours[name], "marker": "o"} for name in self.sizes}

    def line(self, model: str, points: int) -> dict[str, Any]:
        """Return the look of a line through ``points`` points, some of which have markers, unless sizes tell models."""
        marker = "none" if self.by_size and points > 1 else self.looks[model]["marker"]
        every = -(-points // (_FEW_MARKERS if self.many else _MOST_MARKERS))
        dashes = self._dashes.get(model, "-")
        return {**self.looks[model], "linestyle": dashes, "marker": marker, "markersize": 3.5, "markevery": every}

    def handles(self, **look: Any) -> list[Artist]:
        """Return the models' lines for a legend; none where a colour bar explains them."""
        if self.by_size:
            return []
        return [
            Line2D([], [], label=name, **{"linestyle": self._dashes[name], **own, **look})
            for name, own in self.looks.items()
        ]

    def finish(self, figure: Figure, marks: Sequence[Artist] = ()) -> None:
        """Add the legend of models and marks, and a colour bar for sizes. Set the size of `subplots`' figure."""
        lowest = lowest_panels(figure)
        handles = self.handles()
        if not handles or len(lowest) == 1:
            lines = legend_below(lowest[0], [*handles, *marks])
        else:
            height = max(FEW, -(-len(handles) // (len(lowest) - 1)))
            columns = [handles[start : start + height] for start in range(0, len(handles), height)]
            columns[-1 if len(columns) == len(lowest) else len(columns) :] = [[*marks]]
            lines = max(legend_below(axes, column) for axes, column in zip(lowest, columns, strict=False))
        resize(figure, lines)
        self.add_colour_bar(figure)

    def add_colour_bar(self, figure: Figure) -> None:
        """Add a colour bar of sizes beside all panels, if they tell the models. The figure grows by it."""
        if not self.by_size:
            return
        bar = colour_bar(figure, self.colours, _BAR)
        low, high = self.colours.get_clim()
        subs = (1, 2, 5) if high < 100 * low else (1, 3) if high < 1000 * low else (1,)
        bar.ax.yaxis.set_major_locator(LogLocator(subs=subs))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size_words(value)))
        stated = any(isinstance(size, SizeInName) for size in self.sizes.values())
        bar.set_label("parameters, by the models' names" if stated else "parameters")


def _all_differ(sizes: Sizes) -> bool:
    return None not in sizes.values() and len(set(sizes.values())) == len(sizes) > 1


def colour_bar(figure: Figure, colours: ScalarMappable, inches: float) -> Colorbar:
    """Add a colour bar beside all panels. The figure must have its size, which grows by ``inches``."""
    options = {}
    if isinstance(figure, Figure):
        width, height = figure.get_size_inches()
        figure.set_size_inches(width + inches, height)
        options = {"fraction": _FRACTION / (width + inches)}
    bar = figure.colorbar(colours, ax=figure.axes, aspect=30, pad=0.02, **options)
    bar.outline.set_linewidth(0.4)
    bar.ax.grid(False)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    return bar


def shortened(name: str) -> str:
    """Return the end of a long name: the end tells models of one family apart."""
    return name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"

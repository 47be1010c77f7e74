"""The figures of a report: files beside the page, and what the page itself holds of them."""

from __future__ import annotations

import logging
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.style import PANEL, write_figure
from lmsat_plugin.files import safe_name
from lmsat_plugin.plugins import plugins

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from matplotlib.figure import Figure

    from lmsat_plugin.analysis.analyses import Analyses
    from lmsat_plugin.hookspecs import ReportFigure

logger = logging.getLogger(__name__)

FORMATS = (".svg", ".png", ".pdf")
LARGE = 150_000
"""Bytes of an SVG from which on the page holds a picture of points in its place."""
ALL = 2_000_000
"""Bytes that all images in the page may have before the largest SVGs give way, too."""
_WIDEST = 1600
_COLOURS = 128


@dataclass(frozen=True)
class Shown:
    """A figure in the page."""

    figure: ReportFigure
    data: str
    """The image as a ``data:`` URI."""
    size: tuple[int, int]
    """Width and height in CSS pixels, 96 to the inch."""
    files: list[str]
    """Relative to the page."""

    @property
    def is_wide(self) -> bool:
        """Whether it has several panels beside each other."""
        return self.size[0] > 1.5 * 96 * PANEL[0]


def write_figures(analyses: Analyses, folder: Path) -> list[Shown]:
    """Draw what the results can fill, and write it into a folder ``figures`` beside the page.

    Raises `LmsatError` where the folder cannot be written.
    """
    from lmsat_plugin.page.figures import figures_of

    found: dict[str, ReportFigure] = {}
    drawings: dict[str, Figure] = {}
    for figure in (*figures_of(analyses), *plugins().figures(analyses.table)):
        name = _free(safe_name(figure.name), found)
        try:
            drawings[name] = figure.draw()
        except LmsatError as error:
            logger.warning("Left out: %s", error)
        else:
            found[name] = figure
    sizes = {}
    for name, drawing in drawings.items():
        width, height = drawing.get_size_inches()
        sizes[name] = round(96 * width), round(96 * height)
        for suffix in FORMATS:
            write_figure(drawing, folder / "figures" / f"{name}{suffix}")
            # One layout serves all formats: it takes as long as the drawing.
            drawing.set_layout_engine("none")
    return [
        Shown(found[name], data, sizes[name], [f"figures/{name}{suffix}" for suffix in FORMATS])
        for name, data in _images(list(found), folder / "figures").items()
    ]


def _free(name: str, taken: Container[str]) -> str:
    """Return a name that no other figure has: two names from outside may be the same once they are safe."""
    tries = (name, *(f"{name}-{number}" for number in range(2, 10_000)))
    return next(free for free in tries if free not in taken)


def _images(names: list[str], folder: Path) -> dict[str, str]:
    """Return the image of each figure in the page: the SVG, unless it is large or all together are."""
    chosen = {name: ("svg+xml", (folder / f"{name}.svg").read_bytes()) for name in names}
    total = sum(len(data) for _, data in chosen.values())
    for name in sorted(names, key=lambda name: -len(chosen[name][1])):
        size = len(chosen[name][1])
        if size > LARGE or total > ALL:
            small = _small_png(folder / f"{name}.png")
            if len(small) < size:
                chosen[name] = "png", small
                total += len(small) - size
    return {
        name: f"data:image/{kind};base64,{b64encode(data).decode()}" for name, (kind, data) in chosen.items()
    }


def _small_png(file: Path) -> bytes:
    """Return a PNG of fewer points and colours, for the screen."""
    from PIL import Image

    with Image.open(file) as image:
        small = image.convert("RGB")
    small.thumbnail((_WIDEST, 10 * _WIDEST))
    buffer = BytesIO()
    small.quantize(_COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

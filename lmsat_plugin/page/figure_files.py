"""The figures' files beside the page, and the images of them that the page itself holds."""

from __future__ import annotations

import logging
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.style import PANEL, write_figure
from lmsat_plugin.files import safe_name
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.plugins import plugins

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

LARGE = 150_000
"""Bytes above which the page shows a PNG in an SVG's place."""
ALL = 900_000
"""Bytes of all images in the page above which PNGs replace the largest SVGs, too."""
_FORMATS = ("svg", "pdf")
_WIDEST, _DPI = 1200, 150
_COLOURS = 64


@dataclass(frozen=True)
class ShownFigure:
    """A figure in the page."""

    name: str
    """Its figure's, made safe for files."""
    figure: ReportFigure
    data: str
    """The image as a ``data:`` URI."""
    size: tuple[int, int]
    """Width and height in CSS pixels, 96 to the inch."""
    files: list[str]
    """Its files of all formats, relative to the page."""
    panels: dict[str, Any] | None = None
    """What a browser draws in its place: numbers of metrics and of models, these null for all; None: the image."""

    @property
    def is_wide(self) -> bool:
        """Whether it has several panels beside each other."""
        return self.size[0] > 1.5 * 96 * PANEL[0]


def write_figures(analyses: Analyses, folder: Path) -> list[ShownFigure]:
    """Draw the figures that the results can fill, and those of plugins, into a folder ``figures`` beside the page.

    Raises:
        LmsatError: If the folder cannot be written.
    """
    from lmsat_plugin.page.sections import all_figures

    figures: dict[str, ReportFigure] = {}
    drawings: dict[str, Figure] = {}
    for figure in (*all_figures(analyses), *plugins().figures(analyses.table)):
        name = _free(safe_name(figure.name), figures)
        try:
            drawings[name] = figure.draw()
        except LmsatError as error:
            logger.warning("Left out: %s", error)
        else:
            figures[name] = figure
    sizes = {}
    for name, drawing in drawings.items():
        width, height = drawing.get_size_inches()
        sizes[name] = round(96 * width), round(96 * height)
        for suffix in _FORMATS:
            write_figure(drawing, folder / "figures" / f"{name}.{suffix}")
            # The layout of the first format serves the others: to find it takes as long as to draw.
            drawing.set_layout_engine(None)
    svgs = {name: (folder / "figures" / f"{name}.svg").read_bytes() for name in figures}
    return [
        ShownFigure(
            name=name,
            figure=figures[name],
            data=data,
            size=sizes[name],
            files=[f"figures/{name}.{suffix}" for suffix in _FORMATS],
        )
        for name, data in _images(svgs, lambda name: _small_png(drawings[name])).items()
    ]


def _free(name: str, taken: Iterable[str]) -> str:
    """Return the name, numbered if another figure has it: names may become one when they are made safe for files."""
    lower = {other.lower() for other in taken}
    candidates = (name, *(f"{name}-{number}" for number in range(2, 10_000)))
    return next(candidate for candidate in candidates if candidate.lower() not in lower)


def _images(svgs: Mapping[str, bytes], png: Callable[[str], bytes]) -> dict[str, str]:
    """Return each figure's image as a ``data:`` URI: the SVG, or a PNG where it is large or all together are."""
    chosen = {name: ("svg+xml", svg) for name, svg in svgs.items()}
    total = sum(map(len, svgs.values()))
    for name in sorted(svgs, key=lambda name: -len(svgs[name])):
        size = len(svgs[name])
        if size > LARGE or total > ALL:
            small = png(name)
            if len(small) < size:
                chosen[name] = "png", small
                total += len(small) - size
    return {name: f"data:image/{kind};base64,{b64encode(data).decode()}" for name, (kind, data) in chosen.items()}


def _small_png(drawing: Figure) -> bytes:
    """Return a figure as a PNG with few pixels and colours, for the screen."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.png"
        write_figure(drawing, file, widest=min(_WIDEST, _DPI * drawing.get_size_inches()[0]))
        with Image.open(file) as image:
            small = image.convert("RGB")
    buffer = BytesIO()
    small.quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

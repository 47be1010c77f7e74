"""Figures: `plot` draws any result; each ``*_figure`` takes a result or a table and returns a matplotlib Figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmsat_plugin.lazy import lazy_names

if TYPE_CHECKING:
    from lmsat_plugin.figures.drawing import plot
    from lmsat_plugin.figures.style import write_figure

__all__ = ["plot", "write_figure"]

__getattr__ = lazy_names(__name__, {"drawing": ["plot"], "style": ["write_figure"]})

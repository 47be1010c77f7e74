"""Saturation: does a model get worse late in training, since when, and how surely."""

from lmsat_plugin.analysis.saturation.geometry import Geometry
from lmsat_plugin.analysis.saturation.series import Series, series_of
from lmsat_plugin.analysis.saturation.verdict import Contrast, Saturation, saturation

__all__ = ["Contrast", "Geometry", "Saturation", "Series", "saturation", "series_of"]

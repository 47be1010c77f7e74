"""Saturation: whether a model gets worse late in training, since which step, and how sure that is."""

from lmsat_plugin.analysis.saturation.geometry import Geometry
from lmsat_plugin.analysis.saturation.metric_series import MetricSeries, series_of
from lmsat_plugin.analysis.saturation.verdict import Contrast, Saturation, find_saturation

__all__ = ["Contrast", "Geometry", "MetricSeries", "Saturation", "find_saturation", "series_of"]

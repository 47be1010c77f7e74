"""Saturation: whether a model gets worse late in training, from which step on, and how sure that is."""

from lmsat_plugin.analysis.saturation.by_model import Contrast, Saturation, find_saturation
from lmsat_plugin.analysis.saturation.geometry import Geometry
from lmsat_plugin.analysis.saturation.metric_series import MetricSeries, series_of

__all__ = ["Contrast", "Geometry", "MetricSeries", "Saturation", "find_saturation", "series_of"]

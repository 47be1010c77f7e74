"""Saturation: whether a model gets worse late in training, from which step on, and how sure that is."""

from lmsat_plugin.analysis.saturation.by_model import Contrast, Saturation
from lmsat_plugin.analysis.saturation.geometry import Geometry
from lmsat_plugin.analysis.saturation.metric_series import MetricSeries, series_of
from lmsat_plugin.analysis.saturation.several_metrics import find_saturation

__all__ = ["Contrast", "Geometry", "MetricSeries", "Saturation", "find_saturation", "series_of"]

"""Scaling laws: what a loss is to be at a size, an amount of data and of compute."""

from lmsat_plugin.analysis.scaling_laws.fitting import LAWS, fit
from lmsat_plugin.analysis.scaling_laws.results import Estimate, Fit, HeldOut, Predictions, Spread

__all__ = ["LAWS", "Estimate", "Fit", "HeldOut", "Predictions", "Spread", "fit"]

"""Scaling laws: what a loss is to be at a size, an amount of data and of compute."""

from lmsat_plugin.analysis.scaling_laws.fitted import Constant, FittedLaw, HeldOut, Predictions, Spread
from lmsat_plugin.analysis.scaling_laws.fitting import LAWS, fit

__all__ = ["LAWS", "Constant", "FittedLaw", "HeldOut", "Predictions", "Spread", "fit"]

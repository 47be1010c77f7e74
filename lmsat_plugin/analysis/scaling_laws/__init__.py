"""Scaling laws: the loss that a number of parameters, of tokens and an amount of compute lead to."""

from lmsat_plugin.analysis.scaling_laws.fitted_law import Constant, FittedLaw, HeldOut, Predictions, Spread
from lmsat_plugin.analysis.scaling_laws.fitting import LAWS, fit

__all__ = ["LAWS", "Constant", "FittedLaw", "HeldOut", "Predictions", "Spread", "fit"]

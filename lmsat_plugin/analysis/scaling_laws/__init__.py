"""Scaling laws: the loss that a number of parameters, of tokens and an amount of compute lead to."""

from lmsat_plugin.analysis.scaling_laws.fitted_law import FittedLaw
from lmsat_plugin.analysis.scaling_laws.fitting import fit
from lmsat_plugin.analysis.scaling_laws.known_laws import LAWS

__all__ = ["LAWS", "FittedLaw", "fit"]

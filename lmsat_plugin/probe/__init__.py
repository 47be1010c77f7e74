"""What a probe is, what it may need, and what it is given."""

from lmsat_plugin.probe.base import Measurement, Probe
from lmsat_plugin.probe.context import Beside, FinalStates, NoReferenceError, ProbeContext, TokenBatch, TrainingStream
from lmsat_plugin.probe.needs import CORPUS, FORWARD, WINDOWS, Need
from lmsat_plugin.probe.sums import Maxima, StateMoments, StateSpectrum, Sums
from lmsat_plugin.settings import Settings

__all__ = [
    "CORPUS",
    "FORWARD",
    "WINDOWS",
    "Beside",
    "FinalStates",
    "Maxima",
    "Measurement",
    "Need",
    "NoReferenceError",
    "Probe",
    "ProbeContext",
    "Settings",
    "StateMoments",
    "StateSpectrum",
    "Sums",
    "TokenBatch",
    "TrainingStream",
]

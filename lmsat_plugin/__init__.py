"""Measure saturation of language-model checkpoints inside the LM Evaluation Harness."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmsat_plugin.version import __version__

if TYPE_CHECKING:
    from lmsat_plugin.callback import SaturationCallback
    from lmsat_plugin.errors import LmsatError
    from lmsat_plugin.hookspecs import (
        CheckpointEvaluated,
        CheckpointMeasured,
        CorpusRegistry,
        FigureRegistry,
        ProbeRegistry,
        ReportFigure,
        SweepFinished,
        hookimpl,
    )
    from lmsat_plugin.measuring import measure
    from lmsat_plugin.probe import Measurement, Need, Probe, Subject, Sums, TokenBatch
    from lmsat_plugin.results.tree import Results, load_results
    from lmsat_plugin.settings import Settings

_HOMES = {
    "SaturationCallback": "callback",
    "LmsatError": "errors",
    "CheckpointEvaluated": "hookspecs",
    "CheckpointMeasured": "hookspecs",
    "CorpusRegistry": "hookspecs",
    "FigureRegistry": "hookspecs",
    "ProbeRegistry": "hookspecs",
    "SweepFinished": "hookspecs",
    "hookimpl": "hookspecs",
    "load_results": "results.tree",
    "Results": "results.tree",
    "measure": "measuring",
    "Measurement": "probe",
    "Need": "probe",
    "Probe": "probe",
    "ReportFigure": "hookspecs",
    "Settings": "settings",
    "Subject": "probe",
    "Sums": "probe",
    "TokenBatch": "probe",
}

__all__ = [
    "CheckpointEvaluated",
    "CheckpointMeasured",
    "CorpusRegistry",
    "FigureRegistry",
    "LmsatError",
    "Measurement",
    "Need",
    "Probe",
    "ProbeRegistry",
    "ReportFigure",
    "Results",
    "SaturationCallback",
    "Settings",
    "Subject",
    "Sums",
    "SweepFinished",
    "TokenBatch",
    "__version__",
    "hookimpl",
    "load_results",
    "measure",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import lmsat_plugin`` does not import torch."""
    if name in _HOMES:
        return getattr(import_module(f"lmsat_plugin.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lmsat_plugin' has no attribute '{name}'")

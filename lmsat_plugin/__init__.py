"""Measure saturation of language-model checkpoints inside the LM Evaluation Harness."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmsat_plugin.callback import SaturationCallback
    from lmsat_plugin.errors import LmsatError
    from lmsat_plugin.harness.results import load_results
    from lmsat_plugin.hookspecs import (
        CheckpointEvaluated,
        CheckpointMeasured,
        CorpusRegistry,
        FigureRegistry,
        ProbeRegistry,
        SweepFinished,
        hookimpl,
    )
    from lmsat_plugin.measurement.measure import measure
    from lmsat_plugin.probes.base import Measurement, Need, Probe, Subject, Sums, TokenBatch
    from lmsat_plugin.report.report_figure import ReportFigure
    from lmsat_plugin.settings import Settings

__version__ = "0.1.0"

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
    "load_results": "harness.results",
    "measure": "measurement.measure",
    "Measurement": "probes.base",
    "Need": "probes.base",
    "Probe": "probes.base",
    "ReportFigure": "report.report_figure",
    "Settings": "settings",
    "Subject": "probes.base",
    "Sums": "probes.base",
    "TokenBatch": "probes.base",
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
    "SaturationCallback",
    "Settings",
    "Subject",
    "Sums",
    "SweepFinished",
    "TokenBatch",
    "hookimpl",
    "load_results",
    "measure",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import lmsat_plugin`` does not import torch."""
    if name in _HOMES:
        return getattr(import_module(f"lmsat_plugin.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lmsat_plugin' has no attribute '{name}'")

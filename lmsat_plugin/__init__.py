"""Measure saturation of language-model checkpoints inside the LM Evaluation Harness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmsat_plugin.lazy import lazy_names
from lmsat_plugin.version import __version__

if TYPE_CHECKING:
    from lmsat_plugin.callback import SaturationCallback
    from lmsat_plugin.errors import LmsatError
    from lmsat_plugin.figures.drawing import plot
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
    from lmsat_plugin.notebooks import compare, emergence, fit, leaderboard, learning, report, saturation, sweep
    from lmsat_plugin.probe import Maxima, Measurement, Need, NoReferenceError, Probe, ProbeContext, Sums, TokenBatch
    from lmsat_plugin.probe_checks import check_probe, tiny_model
    from lmsat_plugin.results.framed import Answers
    from lmsat_plugin.results.tree import Results, load_results
    from lmsat_plugin.settings import Settings

__all__ = [
    "Answers",
    "CheckpointEvaluated",
    "CheckpointMeasured",
    "CorpusRegistry",
    "FigureRegistry",
    "LmsatError",
    "Maxima",
    "Measurement",
    "Need",
    "NoReferenceError",
    "Probe",
    "ProbeContext",
    "ProbeRegistry",
    "ReportFigure",
    "Results",
    "SaturationCallback",
    "Settings",
    "Sums",
    "SweepFinished",
    "TokenBatch",
    "__version__",
    "check_probe",
    "compare",
    "emergence",
    "fit",
    "hookimpl",
    "leaderboard",
    "learning",
    "load_results",
    "measure",
    "plot",
    "report",
    "saturation",
    "sweep",
    "tiny_model",
]

# `import lmsat_plugin` does not import torch.
__getattr__ = lazy_names(
    __name__,
    {
        "callback": ["SaturationCallback"],
        "errors": ["LmsatError"],
        "hookspecs": [
            *("CheckpointEvaluated", "CheckpointMeasured", "CorpusRegistry", "FigureRegistry"),
            *("ProbeRegistry", "ReportFigure", "SweepFinished", "hookimpl"),
        ],
        "figures.drawing": ["plot"],
        "measuring": ["measure"],
        "notebooks": ["compare", "emergence", "fit", "leaderboard", "learning", "report", "saturation", "sweep"],
        "probe": ["Maxima", "Measurement", "Need", "NoReferenceError", "Probe", "ProbeContext", "Sums", "TokenBatch"],
        "results.framed": ["Answers"],
        "probe_checks": ["check_probe", "tiny_model"],
        "results.tree": ["Results", "load_results"],
        "settings": ["Settings"],
    },
)


def __dir__() -> list[str]:
    """Return the public names, which a notebook completes."""
    return __all__

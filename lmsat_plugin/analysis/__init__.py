"""Analyses: functions from results and tables to small dataclasses. Nothing here imports torch or lm_eval."""

from typing import TYPE_CHECKING

from lmsat_plugin.lazy import lazy_names

if TYPE_CHECKING:
    from lmsat_plugin.analysis.benchmark_noise import find_noise
    from lmsat_plugin.analysis.comparison.comparing import compare
    from lmsat_plugin.analysis.emergence.by_task import find_emergence
    from lmsat_plugin.analysis.emergence.direct_scores import fit_direct
    from lmsat_plugin.analysis.emergence.target_scores import predict_scores
    from lmsat_plugin.analysis.learning.runs import find_learning
    from lmsat_plugin.analysis.rank_needed.by_checkpoint import find_rank_needed
    from lmsat_plugin.analysis.saturation.events import find_events
    from lmsat_plugin.analysis.saturation.outlook import forecast_saturation
    from lmsat_plugin.analysis.saturation.several_metrics import find_saturation
    from lmsat_plugin.analysis.scaling_laws.allocation import allocate
    from lmsat_plugin.analysis.scaling_laws.context_gain import find_context
    from lmsat_plugin.analysis.scaling_laws.efficiency import sample_efficiency
    from lmsat_plugin.analysis.scaling_laws.fitting import fit
    from lmsat_plugin.analysis.scaling_laws.isoflops import fit_isoflops
    from lmsat_plugin.analysis.scaling_laws.run_curves import fit_curves
    from lmsat_plugin.analysis.scaling_laws.shape import shape_dependence

__all__ = [
    "allocate",
    "compare",
    "find_context",
    "find_emergence",
    "find_events",
    "find_learning",
    "find_noise",
    "find_rank_needed",
    "find_saturation",
    "fit",
    "fit_curves",
    "fit_direct",
    "fit_isoflops",
    "forecast_saturation",
    "predict_scores",
    "sample_efficiency",
    "shape_dependence",
]

# One analysis does not import the others.
__getattr__ = lazy_names(
    __name__,
    {
        "benchmark_noise": ["find_noise"],
        "comparison.comparing": ["compare"],
        "emergence.by_task": ["find_emergence"],
        "emergence.direct_scores": ["fit_direct"],
        "emergence.target_scores": ["predict_scores"],
        "learning.runs": ["find_learning"],
        "rank_needed.by_checkpoint": ["find_rank_needed"],
        "saturation.events": ["find_events"],
        "saturation.outlook": ["forecast_saturation"],
        "saturation.several_metrics": ["find_saturation"],
        "scaling_laws.allocation": ["allocate"],
        "scaling_laws.context_gain": ["find_context"],
        "scaling_laws.efficiency": ["sample_efficiency"],
        "scaling_laws.fitting": ["fit"],
        "scaling_laws.isoflops": ["fit_isoflops"],
        "scaling_laws.run_curves": ["fit_curves"],
        "scaling_laws.shape": ["shape_dependence"],
    },
)

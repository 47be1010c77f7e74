"""`plot`, the one call that draws any result: which figure belongs to which kind of result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lmsat_plugin.analysis.benchmark_noise import BenchmarkNoise
from lmsat_plugin.analysis.emergence import DirectFit, Emergence, TargetScore
from lmsat_plugin.analysis.learning import RunLearning
from lmsat_plugin.analysis.rank_needed import CheckpointRanks
from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.analysis.saturation.events import Events, RunEvents
from lmsat_plugin.analysis.scaling_laws import FittedLaw
from lmsat_plugin.analysis.scaling_laws.context_gain import CheckpointContext, ContextGain
from lmsat_plugin.analysis.scaling_laws.efficiency import Efficiency
from lmsat_plugin.analysis.scaling_laws.isoflops import IsoFlops
from lmsat_plugin.analysis.scaling_laws.run_curves import RunCurve
from lmsat_plugin.analysis.scaling_laws.shape import ShapeDependence
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.context import context_figure, context_gain_figure
from lmsat_plugin.figures.direct_scores import direct_scores_figure
from lmsat_plugin.figures.efficiency import efficiency_figure
from lmsat_plugin.figures.emergence import emergence_figure
from lmsat_plugin.figures.events import events_figure
from lmsat_plugin.figures.isoflops import isoflops_figure
from lmsat_plugin.figures.law import fit_figure
from lmsat_plugin.figures.leaderboard import leaderboard_figure
from lmsat_plugin.figures.learning import learning_figure
from lmsat_plugin.figures.noise import noise_figure
from lmsat_plugin.figures.rank import rank_needed_figure
from lmsat_plugin.figures.run_curves import run_curves_figure
from lmsat_plugin.figures.saturation import over_tokens, saturation_figure
from lmsat_plugin.figures.shape import shape_figure
from lmsat_plugin.figures.style import drawing_in, top_figure
from lmsat_plugin.figures.target_scores import target_scores_figure
from lmsat_plugin.ranking.leaderboard import Leaderboard

_FIGURES_OF_LISTS = {
    Saturation: saturation_figure,
    Emergence: emergence_figure,
    TargetScore: target_scores_figure,
    DirectFit: direct_scores_figure,
    CheckpointContext: context_figure,
    CheckpointRanks: rank_needed_figure,
    RunCurve: run_curves_figure,
    BenchmarkNoise: noise_figure,
    RunLearning: learning_figure,
    RunEvents: events_figure,
}


def plot(result: Any, *, x: str | None = None, ax: Axes | None = None, **options: Any) -> Figure:
    """Return the figure of a result, or of a list of results of one kind.

    Results are those of `find_saturation`, `find_emergence`, `predict_scores`, `fit_direct`, `find_context`,
    `find_rank_needed`, `fit_curves`, `find_noise` and `find_learning`, one or a list; of `find_events`, `context_gain`,
    `sample_efficiency`, `shape_dependence` and `fit_isoflops`; of `fit`, with ``predictions=`` for another table; and a
    `Leaderboard`.

    Args:
        result: What to draw.
        x: ``tokens`` draws verdicts on saturation, learning curves and learning over training tokens; by default what
            most checkpoints' names state.
        ax: Where to draw, of a figure of the caller's own, which is returned; several panels share its place.
        options: Of the kind of result.

    Raises:
        LmsatError: For anything else, and for tokens that are not known.

    Example:
        >>> figure = lmsat_plugin.plot(lmsat_plugin.saturation("results"))
        >>> len(figure.axes)
        2
    """
    if x is not None:
        result = _over(x, result)
    if ax is None:
        figure = _draw(result, **options)
        # Notebooks cut figures to what takes part in the layout, which the legends below the panels do not.
        figure.add_artist(Rectangle((0, 0), 1, 1, transform=figure.transFigure, fill=False, linewidth=0))
        return figure
    top = top_figure(ax)
    with drawing_in(ax):
        _draw(result, **options)
    return top


def _over(x: str, result: Any) -> Any:
    several = result if isinstance(result, list) else [result]
    moved: dict[type, Callable[[Any], Any]] = {
        Saturation: over_tokens,
        RunCurve: RunCurve.over_tokens,
        RunLearning: RunLearning.over_tokens,
    }
    if not {type(each) for each in several} <= moved.keys() or x not in ("step", "tokens"):
        raise LmsatError(
            f"x={x} cannot be drawn: give x='step' or x='tokens' with verdicts on saturation, learning curves and "
            "results of learning(), and no x with others"
        )
    return [moved[type(each)](each) for each in several] if x == "tokens" else result


@singledispatch
def _draw(result: Any, **options: Any) -> Figure:
    if type(result) in _FIGURES_OF_LISTS:
        return _draw([result], **options)
    raise LmsatError(f"there is no figure of {type(result).__name__}: give the result of an analysis")


@_draw.register(list)
def _(result: Sequence[Any]) -> Figure:
    kinds = {type(item) for item in result}
    if len(kinds) != 1 or not kinds <= _FIGURES_OF_LISTS.keys():
        names = ", ".join(sorted(kind.__name__ for kind in kinds)) or "no result"
        raise LmsatError(f"there is no figure of a list of {names}: give results of one analysis")
    draw: Any = _FIGURES_OF_LISTS[kinds.pop()]
    return draw(result)


_draw.register(FittedLaw)(fit_figure)
_draw.register(Events)(events_figure)
_draw.register(IsoFlops)(isoflops_figure)
_draw.register(ContextGain)(context_gain_figure)
_draw.register(Efficiency)(efficiency_figure)
_draw.register(ShapeDependence)(shape_figure)
_draw.register(Leaderboard)(leaderboard_figure)

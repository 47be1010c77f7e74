"""Loss or score by training step, with the best checkpoint and the onset of saturation (Godey et al. 2024, Fig. 1a)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.figures.style import BAND, GREY, STYLE, legend_below, log_axis, looks_of, resize, wrapped
from lmsat_plugin.metrics import axis_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from lmsat_plugin.analysis.saturation import Saturation

_COLUMNS = 3
_LETTERS = 30
_ONSET: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 0.8}


def saturation_figure(found: Sequence[Saturation]) -> Figure:
    """Draw a panel for each series: values by step, standard errors, the best checkpoint, the onset with its interval.

    Series of a single checkpoint are left out where others are longer.
    """
    drawn = [one for one in found if len(one.series.steps_K) > 1] or list(found)
    columns = min(_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    look = next(iter(looks_of(["series"]).values()))
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        for index, one in enumerate(drawn):
            axes = figure.add_subplot(rows, columns, index + 1)
            _draw(axes, one, look)
        lines = legend_below(figure.axes[(rows - 1) * columns], _legend(drawn, look))
        resize(figure, columns, lines, rows)
    return figure


def _draw(axes: Axes, one: Saturation, look: dict[str, str]) -> None:
    series = one.series
    steps, values = series.steps_K, series.values_K
    axes.set_title(wrapped(f"{one.label}: {one.verdict}", _LETTERS))
    axes.set_xlabel("training step")
    axes.set_ylabel(axis_label(one.metric))
    axes.plot(steps, values, color=look["color"], marker=look["marker"], markersize=3)
    if series.stderr_K is not None:
        axes.fill_between(
            steps,
            values - series.stderr_K,
            values + series.stderr_K,
            color=look["color"],
            alpha=BAND,
            linewidth=0,
        )
    mark_onset(axes, one)
    axes.plot([one.best_step], [one.best], color="#bb5566", marker="*", markersize=10, linestyle="none")
    log_axis(axes, "x")
    if series.is_ratio:
        log_axis(axes, "y")


def _legend(found: Sequence[Saturation], look: dict[str, str]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=look["color"], marker=look["marker"], markersize=3, label="checkpoints"),
        Line2D([], [], color="#bb5566", marker="*", markersize=10, linestyle="none", label="best checkpoint"),
    ]
    if any(one.series.stderr_K is not None for one in found):
        handles.append(Patch(color=look["color"], alpha=BAND, linewidth=0, label="± standard error"))
    if any(one.onset_step is not None for one in found):
        handles += onset_handles()
    return handles


def mark_onset(axes: Axes, one: Saturation) -> None:
    """Mark the onset with its interval on an axis of steps, if there is one."""
    if one.onset_step is not None and one.onset_low is not None and one.onset_high is not None:
        axes.axvspan(one.onset_low, one.onset_high, color=GREY, alpha=BAND, linewidth=0)
        axes.axvline(one.onset_step, **_ONSET)


def onset_handles() -> list[Artist]:
    """Return what a legend says of `mark_onset`."""
    return [
        Line2D([], [], label="onset", **_ONSET),
        Patch(color=GREY, alpha=BAND, linewidth=0, label="90 % interval of the onset"),
    ]

"""The figure of verdicts on saturation: values by step, the best checkpoint, the onset (Godey et al. 2024, Fig. 1a)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.figures.style import BAND, GREY, STYLE, legend_below, log_axis, looks_of, resize, wrapped
from lmsat_plugin.metrics import axis_label

_COLUMNS = 3
_LETTERS = 30
_ONSET: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 0.8}


def saturation_figure(results: Sequence[Saturation]) -> Figure:
    """Draw a panel for each result: values by step, standard errors, the best checkpoint, the onset with its interval.

    Results of a single checkpoint are left out where others have several.
    """
    drawn = [result for result in results if len(result.series.steps_K) > 1] or list(results)
    columns = min(_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    look = next(iter(looks_of(["series"]).values()))
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        for index, result in enumerate(drawn):
            _draw(figure.add_subplot(rows, columns, index + 1), result, look)
        lines = legend_below(figure.axes[(rows - 1) * columns], _legend(drawn, look))
        resize(figure, columns, lines, rows)
    return figure


def _draw(axes: Axes, result: Saturation, look: dict[str, str]) -> None:
    series = result.series
    steps, values = series.steps_K, series.values_K
    axes.set_title(wrapped(f"{result.label}: {result.verdict}", _LETTERS))
    axes.set_xlabel("training step")
    axes.set_ylabel(axis_label(result.metric))
    axes.plot(steps, values, color=look["color"], marker=look["marker"], markersize=3)
    if series.stderr_K is not None:
        axes.fill_between(steps, values - series.stderr_K, values + series.stderr_K, color=look["color"], **BAND)
    mark_onset(axes, result)
    axes.plot([result.best_step], [result.best], color="#bb5566", marker="*", markersize=10, linestyle="none")
    log_axis(axes, "x")
    if series.is_ratio:
        log_axis(axes, "y")


def _legend(results: Sequence[Saturation], look: dict[str, str]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=look["color"], marker=look["marker"], markersize=3, label="checkpoints"),
        Line2D([], [], color="#bb5566", marker="*", markersize=10, linestyle="none", label="best checkpoint"),
    ]
    if any(result.series.stderr_K is not None for result in results):
        handles.append(Patch(color=look["color"], label="± standard error", **BAND))
    if any(result.onset_step is not None for result in results):
        handles += onset_handles()
    return handles


def mark_onset(axes: Axes, result: Saturation) -> None:
    """Mark the onset and its interval on an axis of steps, if there is an onset."""
    if result.onset_step is not None and result.onset_low is not None and result.onset_high is not None:
        axes.axvspan(result.onset_low, result.onset_high, color=GREY, **BAND)
        axes.axvline(result.onset_step, **_ONSET)


def onset_handles() -> list[Artist]:
    """Return the legend's entries for `mark_onset`."""
    return [Line2D([], [], label="onset", **_ONSET), Patch(color=GREY, label="90 % interval of the onset", **BAND)]

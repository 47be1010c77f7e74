"""The figure of verdicts on saturation: values by step, the best checkpoint, the onset as the cards mark it, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.analysis.saturation.events import RunEvents
from lmsat_plugin.analysis.saturation.several_metrics import names_of
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.style import BAND, GREY, MARKERS, PALETTE, finish, log_axis, styled, subplots, wrapped
from lmsat_plugin.figures.trajectories import step_axis
from lmsat_plugin.metrics import axis_label

_LETTERS = 30
_CHECKPOINTS: dict[str, Any] = {"color": PALETTE[0], "marker": MARKERS[0], "markersize": 3}
_SET_ASIDE: dict[str, Any] = {"color": GREY, "marker": MARKERS[0], "markersize": 4, "linestyle": "none"}
_BEST: dict[str, Any] = {"color": PALETTE[2], "marker": "*", "markersize": 10, "linestyle": "none"}
_ONSET: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 0.8}


@styled
def saturation_figure(results: Sequence[Saturation]) -> Figure:
    """Draw a panel for each result: values by step, standard errors, the best checkpoint, the onset with its interval.

    Checkpoints that are set aside are grey.

    Results of a single checkpoint are left out where others have several.
    """
    drawn = [result for result in results if len(result.series.at_K) > 1] or list(results)
    figure, panels = subplots(len(drawn))
    for axes, result, name in zip(panels, drawn, names_of(drawn), strict=True):
        _draw(axes, result, name)
    finish(figure, _legend(drawn))
    return figure


def over_tokens(result: Saturation) -> Saturation:
    """Return a result whose places are training tokens. Raises `LmsatError` where the tokens are not known."""
    series = result.series
    if series.axis == "tokens":
        return result
    tokens_K = series.tokens_K
    if tokens_K is None or not np.isfinite(tokens_K).all():
        raise LmsatError(
            f"the tokens of {result.label} are not known at all checkpoints: give tokens_per_step, or draw over steps"
        )

    def at(place: int | None) -> int | None:
        return None if place is None else round(float(np.interp(place, series.at_K, tokens_K)))

    names = ("best_at", "final_at", "diverged_at", "onset_at", "onset_low", "onset_high", "min_at")
    places: dict[str, Any] = {name: at(getattr(result, name)) for name in names}
    return replace(
        result,
        axis="tokens",
        series=replace(series, axis="tokens", at_K=tokens_K.astype(np.int64)),
        set_aside_at=[round(float(np.interp(place, series.at_K, tokens_K))) for place in result.set_aside_at],
        **places,
    )


def _draw(axes: Axes, result: Saturation, name: str) -> None:
    series = result.series
    places, values = series.at_K, series.values_K
    axes.set_ylabel(axis_label(result.metric))
    axes.set_title(wrapped(f"{name}: {result.verdict}", _LETTERS))
    axes.plot(places, values, **_CHECKPOINTS)
    if series.stderr_K is not None:
        axes.fill_between(places, values - series.stderr_K, values + series.stderr_K, color=PALETTE[0], **BAND)
    mark_onset(axes, result)
    aside = np.isin(places, result.set_aside_at)
    axes.plot(places[aside], values[aside], zorder=3, **_SET_ASIDE)
    axes.plot([result.best_at], [result.best], **_BEST)
    step_axis(axes, places, series.axis)
    if series.is_ratio:
        log_axis(axes, "y")


def _legend(results: Sequence[Saturation]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], label="checkpoints", **_CHECKPOINTS),
        Line2D([], [], label="best checkpoint", **_BEST),
    ]
    if any(result.series.stderr_K is not None for result in results):
        handles.append(Patch(color=PALETTE[0], label="± standard error", **BAND))
    if any(result.set_aside_at for result in results):
        handles.append(Line2D([], [], label="set aside", **_SET_ASIDE))
    if any(result.onset_at is not None for result in results):
        handles += onset_handles()
    return handles


def mark_onset(axes: Axes, result: Saturation | RunEvents) -> None:
    """Mark the onset and its interval on the axis of the series, if there is an onset."""
    if result.onset_at is not None and result.onset_low is not None and result.onset_high is not None:
        axes.axvspan(result.onset_low, result.onset_high, color=GREY, **BAND)
        axes.axvline(result.onset_at, **_ONSET)


def onset_handles() -> list[Artist]:
    """Return the legend's entries for `mark_onset`."""
    return [Line2D([], [], label="onset", **_ONSET), Patch(color=GREY, label="90 % interval of the onset", **BAND)]

"""The time line of runs: every metric's turns and jumps with their intervals, beside the onset of the loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.analysis.saturation.events import Events, MetricEvent, RunEvents
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.saturation import mark_onset, onset_handles
from lmsat_plugin.figures.style import PALETTE, legend_below, new_figure, resize, styled, wrapped
from lmsat_plugin.figures.trajectories import step_axis
from lmsat_plugin.metrics import probe_of_task

_WIDTH = 6.5
_MOST = 40
"""Runs that one figure has room for."""
_ROW, _FRAME, _LEAST = 0.17, 0.45, 1.1
"""Inches: of a metric's row, of what else a panel has, of the least panel."""
_LETTERS = 70
_KINDS: dict[str, dict[str, Any]] = {
    "turns up": {"marker": "^", "color": PALETTE[0]},
    "turns down": {"marker": "v", "color": PALETTE[0]},
    "jumps up": {"marker": "^", "color": PALETTE[2], "markerfacecolor": "white", "markeredgecolor": PALETTE[2]},
    "jumps down": {"marker": "v", "color": PALETTE[2], "markerfacecolor": "white", "markeredgecolor": PALETTE[2]},
}
_LOOK: dict[str, Any] = {"linestyle": "none", "markersize": 5, "markeredgewidth": 1}


@styled
def events_figure(events: Events | Sequence[RunEvents]) -> Figure:
    """Draw a time line for each run that has an event or an onset: a row a metric, the earliest event on top.

    A line is the 90 % interval of an event. Raises `LmsatError` if no run has any, and for more than 40.
    """
    runs = events.runs if isinstance(events, Events) else events
    drawn = [run for run in runs if run.events or run.onset_at is not None]
    if not drawn:
        raise LmsatError("there is no event to draw: no metric turns or jumps beyond noise, and no run has an onset")
    if len(drawn) > _MOST:
        raise LmsatError(f"{len(drawn)} runs have events, and a figure has room for {_MOST}: choose some with --model")
    figure = new_figure()
    heights = [height_of_events(run.events) for run in drawn]
    panels = figure.subplots(len(drawn), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, run in zip(panels, drawn, strict=True):
        axes.set_title(wrapped(run.name, _LETTERS))
        draw_events(axes, run.events)
        mark_onset(axes, run)
        # The same axis for all runs of a kind, from end to end, so that times compare between panels.
        alike = [other for other in drawn if other.axis == run.axis]
        first, last = min(other.first for other in alike), max(other.last for other in alike)
        step_axis(axes, np.array([first, last, *(one.at for other in alike for one in other.events)]), run.axis)
        margin = 0 if axes.get_xscale() == "log" else 0.02 * (last - first)
        axes.set_xlim(first - margin, last + margin)
        if axes is not panels[-1]:
            axes.set_xlabel("")
    handles = event_handles(event for run in drawn for event in run.events)
    if any(run.onset_at is not None for run in drawn):
        handles += onset_handles()
    lines = legend_below(panels[-1], handles)
    resize(figure, lines, size=(_WIDTH, sum(heights) + 0.2), padding=1)
    return figure


def height_of_events(events: Sequence[MetricEvent]) -> float:
    """Return the inches that a time line needs."""
    return max(_LEAST, _ROW * len(_rows(events)) + _FRAME)


def _rows(events: Sequence[MetricEvent]) -> list[tuple[str, str]]:
    """Return the metrics that have events, in the order of their first one."""
    return list(dict.fromkeys((event.task, event.metric) for event in sorted(events, key=lambda event: event.at)))


def draw_events(axes: Axes, events: Sequence[MetricEvent]) -> None:
    """Draw events with their intervals, a row a metric, from top to bottom."""
    rows = _rows(events)
    places = {row: len(rows) - 1 - place for place, row in enumerate(rows)}
    for event in events:
        place, look = places[event.task, event.metric], _KINDS[event.kind]
        axes.plot([event.low, event.high], [place, place], color=look["color"], linewidth=1.2, solid_capstyle="butt")
        axes.plot([event.at], [place], zorder=3, **_LOOK, **look)
    axes.set_yticks(list(places.values()), [_name(*row, rows) for row in rows])
    axes.set_ylim(-0.6, max(len(rows), 1) - 0.4)


def _name(task: str, metric: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return a metric's name, with its task's where another task has the same."""
    alike = sum(other == metric for _, other in rows) > 1
    return f"{metric} ({probe_of_task(task)})" if alike else metric


def event_handles(events: Iterable[MetricEvent]) -> list[Artist]:
    """Return the legend's entries for `draw_events`."""
    kinds = {event.kind for event in events}
    handles: list[Artist] = [
        Line2D([], [], label=f"metric {kind}", **_LOOK, **look) for kind, look in _KINDS.items() if kind in kinds
    ]
    if kinds:
        handles.append(Line2D([], [], color="black", linewidth=1.2, label="90 % interval of an event"))
    return handles

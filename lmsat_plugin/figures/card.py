"""The saturation card of a model: all that was measured during its training, on one axis of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.analysis.saturation.events import MetricEvent
from lmsat_plugin.figures.events import draw_events, event_handles, height_of_events
from lmsat_plugin.figures.saturation import mark_onset, onset_handles
from lmsat_plugin.figures.style import (
    BAND,
    LETTERS_WIDE,
    PALETTE,
    legend_below,
    log_axis,
    new_figure,
    resize,
    styled,
    wrapped,
)
from lmsat_plugin.figures.trajectories import BEST, axis_of, step_axis

_WIDTH, _HEIGHT = 5.0, 1.25
"""Inches of a panel."""
_WIDER = 1.0
"""Inches more where metrics' names stand beside a time line."""
_COLOUR = PALETTE[0]


@dataclass(frozen=True, eq=False)
class Track:
    """One measurement during training."""

    label: str
    table: pd.DataFrame
    """``axis, step, value, stderr``, and ``low, high`` of means over runs: at least two steps, all above 0."""
    log: bool = False
    """Whether the y axis is logarithmic."""


@styled
def card_figure(
    model: str, tracks: list[Track], saturation: Saturation | None = None, events: Sequence[MetricEvent] = ()
) -> Figure:
    """Draw tracks above each other, on one axis of training steps, or of what the series counts.

    Args:
        model: The title.
        tracks: From top to bottom.
        saturation: The verdict on the first track: its best checkpoint and its onset are marked in all tracks.
        events: Of all metrics of the model's runs, on a time line below the tracks.
    """
    figure = new_figure()
    heights = [_HEIGHT] * len(tracks)
    if events:
        heights.append(height_of_events(events))
    grid = {"height_ratios": heights}
    panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0])
    title = model if saturation is None else f"{model}: {saturation.verdict}"
    panels[0].set_title(wrapped(title, 2 * LETTERS_WIDE - 20))
    for axes, track in zip(panels, tracks, strict=False):
        _draw(axes, track)
    if events:
        draw_events(panels[-1], events)
        panels[-1].tick_params(axis="y", labelsize=6)
    for axes in panels:
        if saturation is not None:
            axes.axvline(saturation.best_at, color=PALETTE[2], linestyle=":", linewidth=0.8)
            mark_onset(axes, saturation)
    if saturation is not None:
        panels[0].plot([saturation.best_at], [saturation.best], color=PALETTE[2], **BEST, zorder=5)
    steps = np.concatenate([track.table.step.to_numpy("float64") for track in tracks])
    step_axis(panels[-1], steps, axis_of(tracks[0].table))
    figure.align_ylabels(panels[: len(tracks)])
    lines = legend_below(panels[-1], [*_legend(tracks, saturation), *event_handles(events)])
    resize(figure, lines, size=(_WIDTH + _WIDER * bool(events), sum(heights) + 0.4), padding=1)
    return figure


def _draw(axes: Axes, track: Track) -> None:
    rows = track.table.sort_values("step")
    axes.plot(rows.step, rows.value, color=_COLOUR, marker="o", markersize=2.5)
    if _is_mean(track):
        axes.fill_between(rows.step, rows.low, rows.high, color=_COLOUR, **BAND)
    else:
        axes.fill_between(rows.step, rows.value - rows.stderr, rows.value + rows.stderr, color=_COLOUR, **BAND)
    axes.set_ylabel(track.label)
    axes.margins(x=0.02)
    if track.log:
        log_axis(axes, "y")


def _is_mean(track: Track) -> bool:
    return "low" in track.table.columns and bool(track.table.low.notna().any())


def _legend(tracks: list[Track], saturation: Saturation | None) -> list[Artist]:
    mean = any(map(_is_mean, tracks))
    label = "mean of runs" if mean else "checkpoints"
    handles: list[Artist] = [Line2D([], [], color=_COLOUR, marker="o", markersize=2.5, label=label)]
    if mean:
        handles.append(Patch(color=_COLOUR, label="from the least run to the greatest", **BAND))
    if any(track.table.stderr.notna().any() for track in tracks):
        handles.append(Patch(color=_COLOUR, label="± standard error", **BAND))
    if saturation is not None:
        handles.append(Line2D([], [], color=PALETTE[2], label="best checkpoint", **BEST))
        if saturation.onset_at is not None:
            handles += onset_handles()
    return handles

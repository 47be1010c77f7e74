"""The figure of `lmsat noise`: signal over noise, and signal over what the questions can show, for each benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmsat_plugin.analysis.benchmark_noise import LEAST_SNR, BenchmarkNoise
from lmsat_plugin.figures.style import (
    GREY,
    LETTERS_WIDE,
    PANEL,
    REFERENCE,
    legend_below,
    log_axis,
    looks_of,
    resize,
    styled,
    wrapped,
)
from lmsat_plugin.results.variants import label

_MOST = 40
"""Benchmarks in one figure, the clearest ones."""
_ROW = 0.2
"""Inches for each line of a benchmark's name."""
_UNKNOWN = "models"


@styled
def noise_figure(results: Sequence[BenchmarkNoise]) -> Figure:
    """Draw for each benchmark and size signal over noise, and signal over the smallest detectable difference.

    The clearest benchmark is at the top. Right of the dashed lines the models can be told apart; full points are worth
    running. Of more than 40 benchmarks those with the greatest ratio are drawn.
    """
    best: dict[str, float] = {}
    for one in results:
        best[_name(one)] = max(best.get(_name(one), -1.0), one.snr or 0.0)
    names = sorted(best, key=lambda name: -best[name])
    rows = {name: place for place, name in enumerate(names[:_MOST])}
    drawn = [one for one in results if _name(one) in rows]
    looks = looks_of(list(dict.fromkeys(one.size or _UNKNOWN for one in results)))
    figure = Figure(layout="constrained")
    noise, questions = figure.subplots(1, 2, sharey=True)
    for one in drawn:
        look: dict[str, Any] = dict(looks[one.size or _UNKNOWN], linestyle="none")
        if not one.worth_running:
            look |= {"markerfacecolor": "none", "markeredgecolor": look["color"], "markeredgewidth": 1}
        if one.snr:
            noise.plot([one.snr], [rows[_name(one)]], **look)
        if one.signal and one.mde:
            questions.plot([one.signal / one.mde], [rows[_name(one)]], **look)
    for axes, least in ((noise, LEAST_SNR), (questions, 1.0)):
        if axes.lines:
            _mark(axes, least)
    left_out = f", the first {_MOST} of {len(names)}" if len(names) > _MOST else ""
    noise.set(title=f"(a) Signal over noise{left_out}", xlabel="signal / noise (snr)")
    questions.set(title="(b) Signal over what the questions show", xlabel="signal / mde")
    shown = [wrapped(name, LETTERS_WIDE) for name in rows]
    noise.set_yticks(range(len(shown)), shown)
    noise.set_ylim(len(shown) - 0.5, -0.5)
    sizes = dict.fromkeys(one.size or _UNKNOWN for one in drawn if one.snr)
    models: list[Artist] = [Line2D([], [], label=name, linestyle="none", **looks[name]) for name in sizes]
    empty: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": GREY}
    meanings: list[Artist] = [
        Line2D([], [], label="worth running", **empty),
        Line2D([], [], label="not worth running, or unknown", markerfacecolor="none", markeredgecolor=GREY, **empty),
        Line2D([], [], label="told apart from here on", color=GREY, **REFERENCE),
    ]
    below = max(legend_below(noise, models), legend_below(questions, meanings))
    lines = sum(name.count("\n") + 1 for name in shown)
    resize(figure, below, size=(2.7 * PANEL[0], 0.9 + max(4, lines) * _ROW))
    return figure


def _name(one: BenchmarkNoise) -> str:
    return label(f"{one.task} {one.metric}", one.variant)


def _mark(axes: Axes, least: float) -> None:
    """Draw where models begin to be told apart, and make the axis logarithmic."""
    axes.axvline(least, color=GREY, zorder=1, **REFERENCE)
    axes.update_datalim([(least, 0)])
    log_axis(axes, "x")
    axes.tick_params(axis="y", length=0)

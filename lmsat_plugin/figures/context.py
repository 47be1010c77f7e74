"""The figure of the loss by position in the context, and of how it changes in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from lmsat_plugin.analysis.scaling_laws.context_gain import CheckpointContext, ContextGain
from lmsat_plugin.figures.style import Looks, legend_below, looks_of, resize, styled, subplots


def context_figure(results: Iterable[CheckpointContext], among: Iterable[str] = ()) -> Figure:
    """Draw the loss by position of each model's last checkpoint; with several steps, also the fits by step.

    Args:
        results: The checkpoints of each model in order, the last one last.
        among: All models that other figures show beside these; see `looks_of`.
    """
    by_model: dict[str, list[tuple[int | None, ContextGain]]] = {}
    for result in results:
        by_model.setdefault(result.label, []).append((result.step, result.gain))
    return _figure(by_model, among)


def context_gain_figure(gain: ContextGain) -> Figure:
    """Draw the losses by position and the fit of one measurement."""
    return _figure({"loss": [(None, gain)]}, ())


@styled
def _figure(by_model: Mapping[str, Sequence[tuple[int | None, ContextGain]]], among: Iterable[str]) -> Figure:
    """Draw the step, or None, and the fit of each model's checkpoints."""
    looks = looks_of(by_model, among)
    steps = {model: [(step, gain) for step, gain in gains if step is not None] for model, gains in by_model.items()}
    figure, panels = subplots(3 if any(len(gains) > 1 for gains in steps.values()) else 1)
    lines = _draw_positions(panels[0], by_model, looks)
    if len(panels) > 1:
        _draw_steps(panels[1], panels[2], steps, looks)
        for axes, letter in zip(panels, "abc", strict=True):
            axes.set_title(f"({letter}) {axes.get_title(loc='left')}")
    resize(figure, lines)
    return figure


def _draw_positions(axes: Axes, by_model: Mapping[str, Sequence[tuple[int | None, ContextGain]]], looks: Looks) -> int:
    axes.set(title="Loss by position", xlabel="tokens of context", ylabel="loss ± standard error (nats per token)")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    handles: list[Artist] = []
    for model, gains in by_model.items():
        step, gain = gains[-1]
        label = model if step is None else f"{model}, step {step}"
        handles.append(Line2D([], [], label=label, **looks[model]))
        dots = {**looks[model], "linestyle": "none", "elinewidth": 0.8}
        axes.errorbar(gain.positions_K, gain.losses_K, gain.stderrs_K, **dots)
        if gain.a is not None and gain.b is not None and gain.exponent is not None:
            contexts = np.geomspace(1, gain.window, 200)
            axes.plot(contexts, gain.a + gain.b * contexts**-gain.exponent, color=looks[model]["color"])
    return legend_below(axes, handles)


def _draw_steps(
    first: Axes, exponent: Axes, steps: Mapping[str, Sequence[tuple[int, ContextGain]]], looks: Looks
) -> None:
    first.set(title="Loss after one token", ylabel="loss ± standard error (nats per token)")
    exponent.set(title="Exponent and its 90 % interval", ylabel="c of a + b T⁻ᶜ")
    for model, gains in steps.items():
        dots = {**looks[model], "elinewidth": 0.8}
        first_losses = np.array([(step, gain.first_loss, gain.first_stderr) for step, gain in gains]).reshape(-1, 3)
        first.errorbar(*first_losses.T, **dots)
        for step, gain in gains:
            if gain.exponent is not None and gain.exponent_low is not None and gain.exponent_high is not None:
                ends = [[gain.exponent - gain.exponent_low], [gain.exponent_high - gain.exponent]]
                exponent.errorbar([step], [gain.exponent], ends, **dots)
    for axes in (first, exponent):
        axes.set_xlabel("step")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(*first.get_xlim())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))

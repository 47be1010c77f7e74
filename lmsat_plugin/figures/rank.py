"""The figure of loss and accuracy against the rank of the LM head (Godey et al. 2024, Figs. 6 and 8)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lmsat_plugin.analysis.rank_needed import CURVES, CheckpointRanks, RankCurve, by_rank
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.style import (
    BAND,
    GREY,
    LETTERS_WIDE,
    REFERENCE,
    Looks,
    legend_below,
    looks_of,
    resize,
    styled,
    subplots,
    wrapped,
)
from lmsat_plugin.results.variants import label

LOSSES = ("model", "curve", "rank", "w_error", "loss", "gap_stderr", "full_loss")
ACCURACIES = ("model", "task", "metric", "curve", "rank", "value", "stderr")

HEADS = {"trained": "trained heads", "weighted": "weighted truncation", "truncated": "truncation"}
"""The names of `CURVES` in a legend."""
_DASHES: dict[str, Any] = {"trained": "-", "weighted": (0, (5, 1.5, 1, 1.5)), "truncated": (0, (1, 1.2))}
_MOST_TICKS = 9


def rank_needed_figure(results: Sequence[CheckpointRanks], among: Iterable[str] = ()) -> Figure:
    """Draw all curves of losses, and the accuracies; see `rank_figure`."""
    losses: list[pd.DataFrame] = []
    accuracies: list[dict[str, Any]] = []
    for result in results:
        name, first = _name(result, results, "revision", "corpus"), result.values["curve"]
        for curve_name in sorted(CURVES, key=lambda curve: curve != first) if result.arrays else ():
            with suppress(LmsatError):
                curve = RankCurve.from_arrays(result.arrays, curve_name)
                ranks = by_rank(curve, result.arrays["rank_head/singular_values"])
                losses.append(ranks.assign(model=name, curve=curve_name, full_loss=curve.full_loss))
        accuracies += [{"model": name, **asdict(accuracy)} for accuracy in result.next_token]
        name = _name(result, results, "revision")
        accuracies += [{"model": name, **accuracy} for accuracy in result.values["downstream"]]
    for row in accuracies:
        row["task"] = label(row["task"], row["variant"])
    values = pd.DataFrame(accuracies, columns=ACCURACIES).astype({"rank": float, "stderr": float})
    # Results on several corpora repeat what does not depend on one.
    return rank_figure(pd.concat(losses) if losses else pd.DataFrame(columns=LOSSES), values.drop_duplicates(), among)


def _name(result: CheckpointRanks, results: Sequence[CheckpointRanks], *keys: str) -> str:
    """Return a model's name, with its values of those keys in which results of the model differ."""
    alike = [other.values for other in results if other.label == result.label]
    differing = [key for key in keys if len({values[key] for values in alike}) > 1]
    return ", ".join([result.label, *(result.values[key] for key in differing if result.values[key] is not None)])


@styled
def rank_figure(losses: pd.DataFrame, accuracies: pd.DataFrame, among: Iterable[str] = ()) -> Figure:
    """Draw loss and accuracy against the rank of the LM head (Godey et al. 2024, Figs. 6 and 8).

    The panels are the loss by rank; accuracies by rank; and, of each model's first curve, the loss against the W-error
    of the model's own head at that rank. Panels without data are left out.

    Args:
        losses: The columns `LOSSES`, a row for each rank of each curve (a key of `HEADS`): losses in nats per token,
            ``gap_stderr`` the standard error of the loss above the full one, NaN where unknown.
        accuracies: The columns `ACCURACIES`, a row for each value, which is a share; ``stderr`` may be NaN. The model's
            own head has no ``curve``, and its ``rank`` may be NaN.
        among: All models that other figures show beside these; see `looks_of`.
    """
    models = list(dict.fromkeys([*losses.model, *accuracies.model]))
    looks = looks_of(models, among)
    drawings: tuple[tuple[str, Callable[..., list[Artist]], pd.DataFrame], ...] = (
        ("Loss", _draw_losses, losses),
        ("Accuracy", _draw_accuracies, accuracies),
        ("Loss against W-error", _draw_w_errors, losses),
    )
    filled = [drawing for drawing in drawings if len(drawing[2])]
    figure, panels = subplots(len(filled))
    explained: set[str] = set()
    lines = 0
    for letter, axes, (title, draw, data) in zip("abc", panels, filled, strict=False):
        axes.set_title(title if len(panels) == 1 else f"({letter}) {title}")
        handles = [handle for handle in draw(axes, data, looks) if handle.get_label() not in explained]
        explained.update(str(handle.get_label()) for handle in handles)
        lines = max(lines, legend_below(axes, handles))
    if len(models) == 1:
        figure.suptitle(wrapped(models[0], LETTERS_WIDE * len(panels)))
    resize(figure, lines)
    return figure


def _draw_losses(axes: Axes, losses: pd.DataFrame, looks: Looks) -> list[Artist]:
    _rank_axis(axes, losses["rank"])
    axes.set_ylabel("loss (nats per token)")
    return _draw_curves(axes, losses, "rank", looks)


def _draw_w_errors(axes: Axes, losses: pd.DataFrame, looks: Looks) -> list[Artist]:
    axes.set_xlabel("W-error of the model's own head at that rank")
    axes.set_ylabel("loss (nats per token)")
    first = losses[losses.curve == losses.groupby("model").curve.transform("first")]
    return _draw_curves(axes, first, "w_error", looks)


def _draw_curves(axes: Axes, losses: pd.DataFrame, x: str, looks: Looks) -> list[Artist]:
    """Draw losses against a column, and the full losses. Return the legend's entries."""
    for model, curve in losses[["model", "curve"]].drop_duplicates().itertuples(index=False):
        rows = losses[(losses.model == model) & (losses.curve == curve)].sort_values(x)
        name = f"{model}, {HEADS[curve]}"
        axes.plot(rows[x], rows.loss, linestyle=_DASHES[curve], label=name, **looks[model])
        ends = rows.loss - rows.gap_stderr, rows.loss + rows.gap_stderr
        axes.fill_between(rows[x], *ends, color=looks[model]["color"], label=name, **BAND)
    for model, loss in losses[["model", "full_loss"]].drop_duplicates().itertuples(index=False):
        axes.axhline(loss, color=looks[model]["color"], label=f"{model}, own head", **REFERENCE)
    handles = [*_models(losses.model, looks), *_heads(losses.curve), _own_head()]
    if losses.gap_stderr.notna().any():
        handles.append(Patch(color=GREY, label="± standard error of the gap", **BAND))
    return handles


def _draw_accuracies(axes: Axes, accuracies: pd.DataFrame, looks: Looks) -> list[Artist]:
    """Draw a line for each model, task and kind of head; it ends at the model's own head.

    Colours tell models apart, or tasks where there is one model. Return the legend's entries.
    """
    _rank_axis(axes, accuracies["rank"].dropna())
    axes.set_ylabel("accuracy ± standard error" if accuracies.stderr.notna().any() else "accuracy")
    metrics = dict(zip(accuracies.task, accuracies.metric, strict=True))
    of_tasks = looks_of([*looks, *metrics] if len(looks) == 1 else metrics)
    heads = accuracies.curve.dropna()
    references = False
    lines = accuracies[accuracies.curve.notna()][["model", "task", "curve"]].drop_duplicates()
    for model, task, curve in lines.itertuples(index=False):
        look = {**of_tasks[task], **({} if len(looks) == 1 else {"color": looks[model]["color"]})}
        rows = accuracies[(accuracies.model == model) & (accuracies.task == task)]
        rows = rows[(rows.curve == curve) | rows.curve.isna()].sort_values("rank")
        line = rows[rows["rank"].notna()]
        drawn = {**look, "label": f"{model}, {task}, {HEADS[curve]}", "linestyle": _DASHES[curve], "elinewidth": 0.8}
        axes.errorbar(line["rank"], line.value, line.stderr, **drawn)
        for value in rows.value[rows["rank"].isna()]:
            references = True
            axes.axhline(value, color=look["color"], label=f"{model}, {task}, own head", **REFERENCE)
    handles: list[Artist] = []
    for task, metric in metrics.items():
        look = {**of_tasks[task], **({} if len(looks) == 1 else {"color": GREY})}
        handles.append(Line2D([], [], label=f"{task}, {metric}", linestyle="none", **look))
    handles += [*_models(accuracies.model, looks, marker="none"), *_heads(heads)]
    return [*handles, _own_head()] if references else handles


def _rank_axis(axes: Axes, ranks: pd.Series) -> None:
    """Make the x axis one of ranks: a tick at the highest, and at those others whose labels have room."""
    axes.set_xlabel("rank of the LM head")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    span = math.log2(ranks.max() / ranks.min())
    margin = max(0.5, 0.05 * span)
    axes.set_xlim(ranks.min() / 2**margin, ranks.max() * 2**margin)
    ticks: list[float] = []
    for rank in sorted(set(ranks), reverse=True):
        if not ticks or math.log2(ticks[-1] / rank) >= (span + 2 * margin) / _MOST_TICKS:
            ticks.append(rank)
    axes.xaxis.set_major_locator(FixedLocator(ticks))


def _models(models: Iterable[str], looks: Looks, **changes: Any) -> list[Artist]:
    """Return the legend's entries for models; a single model is the figure's title instead."""
    names = dict.fromkeys(models) if len(looks) > 1 else ()
    return [Line2D([], [], label=name, **{**looks[name], **changes}) for name in names]


def _heads(curves: Iterable[str]) -> list[Artist]:
    drawn = [curve for curve in HEADS if curve in set(curves)]
    return [Line2D([], [], color=GREY, linestyle=_DASHES[curve], label=HEADS[curve]) for curve in drawn]


def _own_head() -> Artist:
    return Line2D([], [], color=GREY, label="the model's own head", **REFERENCE)

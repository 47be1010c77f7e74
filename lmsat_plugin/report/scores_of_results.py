"""The figures of downstream scores that results can fill: Du et al. 2024."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lmsat_plugin.analysis.chance import chance_level, measured_chances
from lmsat_plugin.report.checkpoint_values import by_step, shown_scores, values_of
from lmsat_plugin.report.emergence_figure import emergence_figure
from lmsat_plugin.report.report_figure import ReportFigure, listed, models_said, sizes_in
from lmsat_plugin.report.score_figures import scores_figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lmsat_plugin.analysis.emergence import Emergence
    from lmsat_plugin.report.collected import Collected

_PAPER = "Du et al. 2024, "
_PANELS = 9
"""Of a figure: what fits on a page."""
_LEAST_POINTS = 3
_METRICS = ("acc", "correct_choice_prob", "brier_score")


def score_figures_of(collected: Collected) -> list[ReportFigure]:
    """Return the figures of scores by step and by loss."""
    return [*_by_step(collected), *_by_loss(collected), *_three_metrics(collected)]


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}-{index // _PANELS + 1}"


def _by_step(collected: Collected) -> Iterator[ReportFigure]:
    tables = {pair: by_step(values_of(collected.table, *pair)) for pair in shown_scores(collected.table)}
    filled = [pair for pair, rows in tables.items() if len(rows)]
    measured = measured_chances(collected.table)
    for index in range(0, len(filled), _PANELS):
        shown = {pair: tables[pair] for pair in filled[index : index + _PANELS]}
        sizes = sizes_in(collected.sizes, (model for rows in shown.values() for model in rows.model))
        chances = {task: chance_level(task, metric, measured) for task, metric in shown}
        said = (
            f"{task} {rows.value.min():.3g} to {rows.value.max():.3g}" for (task, _), rows in shown.items()
        )
        yield ReportFigure(
            _numbered("scores-by-step", index),
            "Scores by training step",
            "",
            f"Scores of {models_said(sizes)} in training, from the least to the best: {listed(said)}.",
            partial(scores_figure, shown, chances, sizes),
        )


def _by_loss(collected: Collected) -> Iterator[ReportFigure]:
    shown = set(shown_scores(collected.table))
    found = [
        one
        for one in _drawn(collected)
        if (one.task.partition(" (")[0], one.metric.partition(" (")[0]) in shown
    ]
    for index in range(0, len(found), _PANELS):
        part = found[index : index + _PANELS]
        yield ReportFigure(
            _numbered("scores-by-loss", index),
            "Scores against the loss",
            _PAPER + "Figs. 1 and 2",
            f"Scores against the pretraining loss: {listed(map(_said, part))}.",
            partial(emergence_figure, part, collected.sizes),
        )


def _three_metrics(collected: Collected) -> Iterator[ReportFigure]:
    by_task: dict[str, list[Emergence]] = {}
    for one in _drawn(collected):
        if one.metric in _METRICS:
            by_task.setdefault(one.task, []).append(one)
    whole = [
        sorted(found, key=lambda one: _METRICS.index(one.metric))
        for found in by_task.values()
        if len(found) == len(_METRICS)
    ]
    rows = _PANELS // len(_METRICS)
    for index in range(0, len(whole), rows):
        part: Sequence[Emergence] = [one for found in whole[index : index + rows] for one in found]
        yield ReportFigure(
            _numbered("three-metrics", index * len(_METRICS)),
            "Accuracy, probability of the right option and Brier score against the loss",
            _PAPER + "Fig. 4",
            f"Three metrics against the pretraining loss: {listed(map(_said, part))}.",
            partial(emergence_figure, part, collected.sizes),
        )


def _drawn(collected: Collected) -> list[Emergence]:
    return [one for one in collected.emergence if one.n_points >= _LEAST_POINTS]


def _said(one: Emergence) -> str:
    verdict = {True: "emergent", False: "not emergent", None: "not to be told"}[one.emergent]
    at = "" if one.threshold is None else f" at {one.threshold:.3g}"
    return f"{one.task} {one.metric} is {verdict}{at}"

"""The figures of downstream scores that results can fill: Du et al. 2024."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lmsat_plugin.analysis.chance import chance_level, measured_chances
from lmsat_plugin.analysis.checkpoint_values import by_step, shown_scores, values_of
from lmsat_plugin.figures.emergence import emergence_figure
from lmsat_plugin.figures.scores import scores_figure
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.words import listed, models_said, sizes_in
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lmsat_plugin.analysis.analyses import Analyses
    from lmsat_plugin.analysis.emergence import Emergence

_PAPER = "Du et al. 2024, "
_PANELS = 9
"""Of a figure: what fits on a page."""
_LEAST_POINTS = 3
_METRICS = ("acc", "correct_choice_prob", "brier_score")


def score_figures_of(analyses: Analyses) -> list[ReportFigure]:
    """Return the figures of scores by step and by loss."""
    return [*_by_step(analyses), *_by_loss(analyses), *_three_metrics(analyses)]


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}-{index // _PANELS + 1}"


def _by_step(analyses: Analyses) -> Iterator[ReportFigure]:
    tables = {pair: by_step(values_of(analyses.table, *pair)) for pair in shown_scores(analyses.table)}
    filled = [pair for pair, rows in tables.items() if len(rows)]
    measured = measured_chances(analyses.table)
    for index in range(0, len(filled), _PANELS):
        shown = {pair: tables[pair] for pair in filled[index : index + _PANELS]}
        sizes = sizes_in(analyses.sizes, (model for rows in shown.values() for model in rows.model))
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


def _by_loss(analyses: Analyses) -> Iterator[ReportFigure]:
    shown = set(shown_scores(analyses.table))
    found = [one for one in _drawn(analyses) if (one.task, one.metric) in shown]
    for index in range(0, len(found), _PANELS):
        part = found[index : index + _PANELS]
        yield ReportFigure(
            _numbered("scores-by-loss", index),
            "Scores against the loss",
            _PAPER + "Figs. 1 and 2",
            f"Scores against the pretraining loss: {listed(map(_said, part))}.",
            partial(emergence_figure, part, analyses.sizes),
        )


def _three_metrics(analyses: Analyses) -> Iterator[ReportFigure]:
    by_task: dict[tuple[str, str | None], list[Emergence]] = {}
    for one in _drawn(analyses):
        if one.metric in _METRICS:
            by_task.setdefault((one.task, one.variant), []).append(one)
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
            partial(emergence_figure, part, analyses.sizes),
        )


def _drawn(analyses: Analyses) -> list[Emergence]:
    return [one for one in analyses.emergence if one.n_points >= _LEAST_POINTS]


def _said(one: Emergence) -> str:
    verdict = {True: "emergent", False: "not emergent", None: "unclear"}[one.emergent]
    at = "" if one.threshold is None else f" at {one.threshold:.3g}"
    return f"{label(f'{one.task} {one.metric}', one.variant)} is {verdict}{at}"

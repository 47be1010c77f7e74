"""Which figures of downstream scores the results can fill (Du et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.chance import chance_level, measured_chances
from lmsat_plugin.analysis.checkpoint_values import by_axis, by_step, over_runs, shown_scores, values_of
from lmsat_plugin.analysis.emergence import Emergence
from lmsat_plugin.figures.emergence import emergence_figure
from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.trajectories import scores_figure
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections.alt_text import count_of, listed
from lmsat_plugin.results.series import AXES
from lmsat_plugin.results.variants import label

_PAPER = "Du et al. 2024, "
_PANELS = 9
"""The most panels of a figure: as many as fit on a page."""
_LEAST_POINTS = 3
_METRICS = ("acc", "correct_choice_prob", "brier_score")


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}-{index // _PANELS + 1}"


def _by_step(analyses: Analyses) -> Iterator[ReportFigure]:
    whole = {pair: over_runs(by_step(values_of(analyses.table, *pair))) for pair in shown_scores(analyses.table)}
    tables = {(axis, *pair): own for pair, rows in whole.items() for axis, own in by_axis(rows)}
    filled = sorted(tables, key=lambda key: list(AXES).index(key[0]))
    measured = measured_chances(analyses.table)
    parts = [
        (axis, keys[index : index + _PANELS], index)
        for axis, keys in ((axis, [key for key in filled if key[0] == axis]) for axis in AXES)
        for index in range(0, len(keys), _PANELS)
    ]
    for axis, keys, index in parts:
        shown = {key[1:]: tables[key] for key in keys}
        models = ModelLooks(analyses.group_sizes, {model for rows in shown.values() for model in rows.model})
        chances = {task: chance_level(task, metric, measured) for task, metric in shown}
        ranges = (f"{task} {rows.value.min():.3g} to {rows.value.max():.3g}" for (task, _), rows in shown.items())
        yield ReportFigure(
            name=_numbered(f"scores-by-{axis}", index),
            title=f"Scores by {AXES[axis]}",
            source="",
            alt=f"Scores of {count_of(models.sizes)} in training, from the least to the best: {listed(ranges)}.",
            draw=partial(scores_figure, shown, chances, models),
        )


def _by_loss(analyses: Analyses) -> Iterator[ReportFigure]:
    shown = set(shown_scores(analyses.table))
    results = [result for result in _drawn(analyses) if (result.task, result.metric) in shown]
    for index in range(0, len(results), _PANELS):
        part = results[index : index + _PANELS]
        yield ReportFigure(
            name=_numbered("scores-by-loss", index),
            title="Scores against the loss",
            source=_PAPER + "Figs. 1 and 2",
            alt=f"Scores against the pretraining loss: {listed(map(_in_words, part))}.",
            draw=partial(emergence_figure, part, _looks(analyses, part)),
        )


def _three_metrics(analyses: Analyses) -> Iterator[ReportFigure]:
    by_task: dict[tuple[str, str | None], list[Emergence]] = {}
    for result in _drawn(analyses):
        if result.metric in _METRICS:
            by_task.setdefault((result.task, result.variant), []).append(result)
    complete = [
        sorted(results, key=lambda result: _METRICS.index(result.metric))
        for results in by_task.values()
        if len(results) == len(_METRICS)
    ]
    rows = _PANELS // len(_METRICS)
    for index in range(0, len(complete), rows):
        part = [result for results in complete[index : index + rows] for result in results]
        yield ReportFigure(
            name=_numbered("three-metrics", index * len(_METRICS)),
            title="Accuracy, probability of the right option and Brier score against the loss",
            source=_PAPER + "Fig. 4",
            alt=f"Three metrics against the pretraining loss: {listed(map(_in_words, part))}.",
            draw=partial(emergence_figure, part, _looks(analyses, part)),
        )


def _drawn(analyses: Analyses) -> list[Emergence]:
    return [result for result in analyses.emergence if result.n_points >= _LEAST_POINTS]


def _looks(analyses: Analyses, results: Sequence[Emergence]) -> ModelLooks:
    return ModelLooks(analyses.group_sizes, {model for result in results for model in result.scores.table["model"]})


def _in_words(result: Emergence) -> str:
    verdict = {True: "emergent", False: "not emergent", None: "unclear"}[result.emergent]
    threshold = "" if result.threshold is None else f" at {result.threshold:.3g}"
    return f"{label(f'{result.task} {result.metric}', result.variant)} is {verdict}{threshold}"


PARTS = (_by_step, _by_loss, _three_metrics)

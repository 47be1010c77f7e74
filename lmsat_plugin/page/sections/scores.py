"""Which figures of downstream scores the results can fill (Du et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.chance import chance_level, measured_chances
from lmsat_plugin.analysis.checkpoint_values import by_axis, by_step, over_runs, shown_scores, ways_of
from lmsat_plugin.analysis.emergence import Emergence
from lmsat_plugin.figures.emergence import emergence_figure
from lmsat_plugin.figures.model_looks import ModelLooks, model_pages
from lmsat_plugin.figures.trajectories import scores_figure
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections.alt_text import count_of, listed
from lmsat_plugin.results.series import AXES
from lmsat_plugin.results.variants import label

_PAPER = "Du et al. 2024, "
_PANELS = 9
"""The most panels of a figure: as many as fit on a page."""
_LEAST_POINTS = 3
Key = tuple[str, str, str]
"""Task, metric, and the number of shots and the filter in words."""
_METRICS = ("acc", "correct_choice_prob", "brier_score")


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}-{index + 1}"


def _by_step(analyses: Analyses) -> Iterator[ReportFigure]:
    tables = {
        (axis, task, metric, way): own
        for task, metric in shown_scores(analyses.table)
        for way, rows in ways_of(analyses.table, task, metric).items()
        for axis, own in by_axis(over_runs(by_step(rows)))
    }
    measured = measured_chances(analyses.table)
    for axis in AXES:
        of_axis = {key[1:]: rows for key, rows in tables.items() if key[0] == axis}
        drawn = {model for rows in of_axis.values() for model in rows.model}
        parts = [
            (models, shown)
            for models in model_pages({name: size for name, size in analyses.group_sizes.items() if name in drawn})
            for shown in _panels({key: rows[rows.model.isin(models)] for key, rows in of_axis.items()})
        ]
        for number, (models, shown) in enumerate(parts):
            looks = ModelLooks(analyses.group_sizes, models)
            chances = {task: chance_level(task, metric, measured) for task, metric, _ in shown}
            ranges = (
                f"{_titled(task, way)} {rows.value.min():.3g} to {rows.value.max():.3g}"
                for (task, _, way), rows in shown.items()
            )
            yield ReportFigure(
                name=_numbered(f"scores-by-{axis}", number),
                title=f"Scores by {AXES[axis]}{_place(number, len(parts))}",
                source="",
                alt=f"Scores of {count_of(looks.sizes)} in training, from the least to the best: {listed(ranges)}.",
                draw=partial(
                    scores_figure,
                    {(_titled(task, way), metric): rows for (task, metric, way), rows in shown.items()},
                    {_titled(task, way): chances[task] for task, _, way in shown},
                    looks,
                ),
                # A chart has one of the ways in which a score was measured.
                panels=tuple(key[:2] for key in shown) if len({key[:2] for key in of_axis}) == len(of_axis) else (),
                models=models,
            )


def _panels(tables: Mapping[Key, pd.DataFrame]) -> list[dict[Key, pd.DataFrame]]:
    """Return the tables that hold something, as many together as a figure has panels."""
    filled = [(key, rows) for key, rows in tables.items() if len(rows)]
    return [dict(filled[index : index + _PANELS]) for index in range(0, len(filled), _PANELS)]


def _titled(task: str, way: str) -> str:
    return f"{task}, {way}" if way else task


def _place(number: int, count: int) -> str:
    return f" ({number + 1} of {count})" if count > 1 else ""


def _by_loss(analyses: Analyses) -> Iterator[ReportFigure]:
    shown = set(shown_scores(analyses.table))
    results = [result for result in _drawn(analyses) if (result.task, result.metric) in shown]
    for index in range(0, len(results), _PANELS):
        part = results[index : index + _PANELS]
        yield ReportFigure(
            name=_numbered("scores-by-loss", index // _PANELS),
            title=f"Scores against the loss{_place(index // _PANELS, -(-len(results) // _PANELS))}",
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
            name=_numbered("three-metrics", index // rows),
            title="Accuracy, probability of the right option and Brier score against the loss"
            + _place(index // rows, -(-len(complete) // rows)),
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

"""Figures of every metric over training, those of plugins' probes among them: a panel each, task by task."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.checkpoint_values import by_axis, by_step, is_part, over_runs, shown_scores, values_of
from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.multiples import multiples_figure
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.metrics import axis_label
from lmsat_plugin.metrics import metric as known_metric
from lmsat_plugin.page.sections.alt_text import count_of, listed
from lmsat_plugin.page.sections.training import named
from lmsat_plugin.results.series import AXES
from lmsat_plugin.results.training_order import natural

_PANELS = 9
_MOST = 16
"""Figures of a page: they would be slow to write with hundreds of tasks."""
_OWN = {
    *(("lmsat_loss", "loss"), ("lmsat_anisotropy", "anisotropy_last"), ("lmsat_head", "singular_entropy")),
    *(("wikitext", "word_perplexity"), ("lmsat_gradient_noise", "critical_batch_tokens")),
}
"""Metrics that have a figure of their own."""
_LOG = ("singular_entropy",)


def is_logarithmic(metric: str, values: pd.Series) -> bool:
    """Return whether a metric is drawn on a logarithmic axis: a perplexity or singular entropy, all above 0."""
    return bool((values.dropna() > 0).all()) and (known_metric(metric).is_ratio or metric in _LOG)


def _every_metric(analyses: Analyses) -> Iterator[ReportFigure]:
    """Yield figures of the tasks that have a metric without a figure of its own; downstream scores have theirs.

    Metrics that never change, such as the number of tokens, are left out.
    """
    table = analyses.table
    scored = {task for task, _ in shown_scores(table)}
    tasks = [task for task in table.task.unique() if task not in scored and not is_part(task)]
    tasks.sort(key=lambda task: (not task.startswith("lmsat"), natural(task)))
    figures = [*islice((figure for task in tasks for figure in _of_task(analyses, str(task))), _MOST + 1)]
    if len(figures) > _MOST:
        analyses.missing["every metric"] = f"there is room for {_MOST} figures of them, and there are more"
    yield from figures[:_MOST]


def _of_task(analyses: Analyses, task: str) -> Iterator[ReportFigure]:
    rows = analyses.table[analyses.table.task == task]
    placed = rows[rows["at"].notna()]
    changing = placed.groupby("metric", sort=False)[["value", "at"]].nunique().min(axis=1) > 1
    metrics = list(map(str, changing.index[changing]))
    if {(task, metric) for metric in metrics} <= _OWN:
        return
    parts = [metrics[index : index + _PANELS] for index in range(0, len(metrics), _PANELS)]
    for number, part in enumerate(parts):
        by_axes: dict[str, dict[str, pd.DataFrame]] = {}
        for metric in part:
            for axis, own in by_axis(over_runs(by_step(values_of(rows, task, metric)))):
                by_axes.setdefault(axis, {})[metric] = own
        place = f" ({number + 1} of {len(parts)})" if len(parts) > 1 else ""
        for axis, shown in by_axes.items():
            models = ModelLooks(analyses.group_sizes, {model for own in shown.values() for model in own.model})
            ranges = (f"{metric} {own.value.min():.3g} to {own.value.max():.3g}" for metric, own in shown.items())
            yield ReportFigure(
                name=named(f"every-{task}", axis) + (f"-{number + 1}" if number else ""),
                title=f"{task}: every metric by {AXES[axis]}{place}",
                source="",
                alt=f"Metrics of {task} of {count_of(models.sizes)} in training, from the least to the greatest: "
                f"{listed(ranges)}.",
                draw=partial(
                    multiples_figure,
                    {(axis_label(metric), is_logarithmic(metric, own.value)): own for metric, own in shown.items()},
                    models,
                ),
                panels=tuple((task, metric) for metric in shown),
            )


PARTS = (_every_metric,)

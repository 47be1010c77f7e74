"""Saturation by one metric or by all of a table: verdicts with Holm's correction, and what they say of each model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.checkpoint_values import judged_scores
from lmsat_plugin.analysis.given_numbers import check_number, check_simulation
from lmsat_plugin.analysis.input_tables import is_tidy, series_in
from lmsat_plugin.analysis.saturation.by_model import Judgement, Saturation, verdicts_by
from lmsat_plugin.analysis.saturation.metric_series import metrics_of
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT, holm
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_FEWEST_REPETITIONS = 100
"""In fewer, p = 0.05 hangs on one or two simulated runs."""
_REPETITIONS_OF_SEVERAL = 2000
"""Of several metrics: Holm's method needs p far out in the tail (`tail_p_values`)."""
_MOST_NAMED = 4


def find_saturation(
    data: Results | pd.DataFrame,
    task: str | None = None,
    metric: str | None = None,
    *,
    min_step: int | None = None,
    tolerance: float | None = None,
    repetitions: int = 500,
    seed: int = 0,
) -> list[Saturation]:
    """Return the verdict on each series: a model's run through its pretraining stages, or a stage that begins again.

    A model *saturates* if a rise near its end is more likely than checkpoint-to-checkpoint noise about a falling curve
    (`rise_of`), if the mean of its last fifth lies surely above that of its best stretch before, and if another sample
    of documents or questions would show that, too: p < 0.05 against each. Otherwise it is *improving* if its last
    stretches surely fall, or each value is below the one before. It *plateaus* if the last fifth and the one before
    surely differ by less than the tolerance (two one-sided tests, each at 5 %). It is *unclear* in all other cases. A
    model whose last values are not finite has *diverged*, and what came before is not judged.

    Without lmsat_loss, and if no task is named, one metric of each task has its verdicts (`judged_scores`). Then the p
    of a series are corrected for their number by Holm's method (1979), and ``saturates`` is what is left below 0.05.
    Scores at chance have no p, and do not count.

    Args:
        data: Results, whose losses by document are used where they were kept, or a table as `series_of` takes it,
            which may hold the geometry, too.
        task, metric: See `metrics_of`; ``*`` judges parts of benchmarks and further metrics of a task, too.
        min_step: Checkpoints before this step, or these tokens or words where a series counts these, are left out; by
            default those before a hundredth of the last one.
        tolerance: Of *plateaus*, in the unit of the metric, or as a difference of logarithms for perplexities. By
            default twice the standard deviation of one checkpoint, its noise and its standard error together.
        repetitions: Of each simulation, at least 100.
        seed: Of the random numbers.

    Raises:
        LmsatError: As `series_of`, if a model has no checkpoint from ``min_step`` on, and for a number out of range.
    """
    if tolerance is not None:
        check_number("tolerance", tolerance, "give a difference of the metric, above 0", least=0)
    if min_step is not None:
        check_number("min_step", min_step, "give a step, or tokens, from 0 on", least=0, ends=True)
    check_simulation(repetitions, seed, usual=500, least=_FEWEST_REPETITIONS)
    options = Judgement(min_step=min_step, tolerance=tolerance, repetitions=repetitions, seed=seed)
    table = series_in(data)
    pairs = metrics_of(table, task, metric) if is_tidy(table) else []
    if task is None and metric is None:
        pairs = judged_scores(pairs, data.groups if isinstance(data, Results) else ())
    if len(pairs) < 2:
        task, metric = pairs[0] if pairs else (task, metric)
        return verdicts_by(data, table, task, metric, options=options)
    options = replace(options, repetitions=max(repetitions, _REPETITIONS_OF_SEVERAL))
    by_task = dict(list(table.groupby("task", sort=False)))
    found: list[Saturation] = []
    refused: list[LmsatError] = []
    for own_task, own_metric in pairs:
        try:
            rows = by_task[own_task]
            found += verdicts_by(data, rows, own_task, own_metric, options=options, several=True)
        except LmsatError as error:
            refused.append(error)
            logger.warning("%s %s is left out: %s", own_task, own_metric, error)
    if not found:
        raise (
            refused[0] if refused else LmsatError(f"no model has a checkpoint from {min_step} on: set --min-step lower")
        )
    return _with_holm(found)


def _with_holm(results: Sequence[Saturation]) -> list[Saturation]:
    """Return verdicts on several metrics, with the p of each series corrected for their number."""
    corrected = dict(enumerate(results))
    for label in dict.fromkeys(result.label for result in results):
        known = [index for index, one in enumerate(results) if one.label == label and one.p_value is not None]
        p_values = holm(np.array([results[index].p_value for index in known], dtype=np.float64))
        for index, p_value in zip(known, p_values, strict=True):
            corrected[index] = _corrected(results[index], float(p_value), len(known))
    return list(corrected.values())


def _corrected(result: Saturation, p_value: float, number: int) -> Saturation:
    if result.verdict != "saturates" or p_value < SIGNIFICANT:
        return replace(result, corrected_p_value=p_value)
    return replace(
        result,
        corrected_p_value=p_value,
        verdict="unclear",
        reason=f"{result.reason}; corrected for the {number} scores of this model, p = {p_value:.2g}",
        onset_at=None,
        onset_low=None,
        onset_high=None,
        onset_tokens=None,
    )


def has_several_metrics(results: Sequence[Saturation]) -> bool:
    """Return whether verdicts are by several tasks and metrics."""
    return len({(result.task, result.metric) for result in results}) > 1


def by_scores(results: Sequence[Saturation]) -> str:
    """Return the verdicts on one model by several scores in words, such as ``saturates by 3 of 14 scores``."""
    return f"saturates by {sum(result.verdict == 'saturates' for result in results)} of {len(results)} scores"


def score_of(result: Saturation) -> str:
    """Return the name of the score of a verdict, with what tells it apart from others of the task."""
    parts = [result.task, result.metric, result.filter if result.filter not in (None, "none") else None]
    shots = None if result.num_fewshot is None else f"{result.num_fewshot}-shot"
    return " ".join(filter(None, (*parts, shots)))


def told_apart(result: Saturation, alike: Sequence[Saturation]) -> list[str]:
    """Return what tells a verdict apart from others of the same name: task, metric, corpus, shots and filter."""
    shots = "shots unknown" if result.num_fewshot is None else f"{result.num_fewshot}-shot"
    parts = {
        "task": f"{result.task}",
        "metric": result.metric,
        "corpus": f"on {result.corpus}",
        "num_fewshot": shots,
        "filter": f"filter {result.filter}",
    }
    return [text for key, text in parts.items() if len({getattr(other, key) for other in alike}) > 1]


def names_of(results: Sequence[Saturation]) -> list[str]:
    """Return a name of each verdict for people, which no other one has: its label and, where needed, its score."""
    if has_several_metrics(results):
        return [f"{result.label}, {score_of(result)}" for result in results]
    by_label: dict[str, list[Saturation]] = {}
    for result in results:
        by_label.setdefault(result.label, []).append(result)
    return [", ".join([result.label, *told_apart(result, by_label[result.label])]) for result in results]


def summaries(results: Sequence[Saturation]) -> dict[str, str]:
    """Return a sentence on each model that is judged by several scores, by its label."""
    said = {}
    for label in dict.fromkeys(result.label for result in results):
        own = [result for result in results if result.label == label]
        named = [score_of(result) for result in own if result.verdict == "saturates"]
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        listed = f" ({', '.join(named[:_MOST_NAMED])}{more})" if named else ""
        counts = Counter(result.verdict for result in own if result.verdict != "saturates")
        others = "".join(f", {number} {verdict}" for verdict, number in counts.most_common())
        said[label] = f"{by_scores(own)}{listed}{others}"
    return said

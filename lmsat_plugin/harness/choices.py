"""Continuous metrics of multiple-choice tasks, which improve before the accuracy does (Du et al. 2024).

Shapes: C options of a document.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask, Task

from lmsat_plugin.metrics import directions

_METRICS = ("correct_choice_prob", "brier_score", "logprob_margin", "chance")


def choice_metrics(logprobs_C: np.ndarray, right: Collection[int]) -> dict[str, float]:
    """Return the metrics of one document from its options' summed log-likelihoods, in nats.

    With p the softmax over the options, and R the indices of those that count as right, most often one:

    ``correct_choice_prob`` = Σ_{i∈R} p_i (Du et al. 2024, CorrectChoiceProb, renormalised over the options).
    ``brier_score`` = (1 − Σ_{i∈R} p_i)² + Σ_{i∉R} p_i², the sum over options of (y − p)², several right ones
    taken as one; a guess over C options with one right scores 1 − 1/C (Du et al. 2024).
    ``logprob_margin`` = max_{i∈R} log p_i − max_{i∉R} log p_i, in nats: above 0 where lm-eval's ``acc`` is 1.
    NaN where no option is right, which lm-eval counts as wrong, or none is wrong.
    ``chance`` = |R| / C, the chance accuracy: it depends on the document alone.
    """
    logprobs_C = np.asarray(logprobs_C, dtype=np.float64)
    is_right_C = np.zeros(len(logprobs_C), dtype=bool)
    is_right_C[list(right)] = True
    p_C = np.exp(logprobs_C - logprobs_C.max())
    p_C /= p_C.sum()
    probability = p_C[is_right_C].sum()
    margin = np.nan
    if is_right_C.any() and not is_right_C.all():
        margin = logprobs_C[is_right_C].max() - logprobs_C[~is_right_C].max()
    return {
        "correct_choice_prob": float(probability),
        "brier_score": float((1 - probability) ** 2 + (p_C[~is_right_C] ** 2).sum()),
        "logprob_margin": float(margin),
        "chance": float(is_right_C.mean()),
    }


def add_choice_metrics(task: Task) -> None:
    """Make a multiple-choice task measure `choice_metrics` besides its own metrics, which stay as they are.

    Means and standard errors are over documents, as those of ``acc``. Tasks of another kind are left alone, and
    those with their own ``process_results``, which may define the right options in another way.
    """
    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE != "multiple_choice":
        return
    new = [name for name in _METRICS if name not in task.aggregation()]
    if callable(task.config.process_results) or not new:
        return
    task.aggregation().update(dict.fromkeys(new, mean))
    task.higher_is_better().update(directions(*new))
    process = task.process_results

    def process_results(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
        own = process(doc, results)
        choices = task.doc_to_choice(doc)
        # With acc_mutual_info the options' unconditional log-likelihoods follow.
        logprobs_C = np.array([logprob for logprob, _ in results[: len(choices)]])
        metrics = choice_metrics(logprobs_C, _right(task, doc, choices))
        return {**own, **{name: metrics[name] for name in new}}

    task.process_results = process_results


def _right(task: ConfigurableTask, doc: dict[str, Any], choices: Sequence[str]) -> set[int]:
    """Return the options that lm-eval's ``acc`` counts as right."""
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(gold, str):
        gold = choices.index(gold) if gold in choices else -1
    golds = gold if isinstance(gold, list) else [gold]
    return {int(index) for index in golds if isinstance(index, int | float) and 0 <= index < len(choices)}

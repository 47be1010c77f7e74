"""Verdicts by several scores: Holm's correction, and what is said of each model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from training_runs import STEPS, falling, results_of

from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.checkpoint_values import judged_scores
from lmsat_plugin.analysis.saturation.several_metrics import summaries


def test_each_score_of_each_model_has_a_verdict():
    rng = np.random.default_rng(2)
    parts = []
    for model in ("a", "b"):
        for task in ("piqa", "sciq", "arc_easy"):
            values = 0.8 - (falling(rng, scale=0.003) - 3) / 4
            if (model, task) == ("a", "sciq"):
                values[18:] -= 0.05
            parts.append(results_of(values, task=task, model=model))
    table = pd.concat(parts)
    found = {(one.model, one.task): one for one in find_saturation(table)}
    assert len(found) == 6
    risen = found.pop(("a", "sciq"))
    assert risen.verdict == "saturates"
    assert risen.p_value <= risen.corrected_p_value <= 3 * risen.p_value + 1e-12
    assert all(one.verdict != "saturates" for one in found.values())
    said = summaries([risen, *found.values()])
    assert said["a"].startswith("saturates by 1 of 3 scores (sciq acc)")
    assert said["b"].startswith("saturates by 0 of 3 scores")
    (alone,) = [one for one in find_saturation(table, "sciq") if one.model == "a"]
    assert alone.corrected_p_value is None


def test_a_rise_that_many_scores_could_show_by_chance_is_unclear():
    """One of 20 scores with p of a few per cent is what chance gives."""
    rng = np.random.default_rng(3)
    runs = 0.5 + 0.01 * rng.standard_normal((20, 28))
    runs[7, -6:] -= 0.015
    parts = [results_of(run, task=f"task{index:02}") for index, run in enumerate(runs)]
    (alone,) = find_saturation(parts[7])
    assert alone.verdict == "saturates"
    assert alone.p_value > 0.05 / 20
    risen = find_saturation(pd.concat(parts))[7]
    assert (risen.verdict, risen.onset_step) == ("unclear", None)
    assert "corrected for the 20 scores of this model, p =" in risen.reason


def test_one_metric_of_each_task_is_judged_unless_more_is_asked_for():
    values = 0.5 + 0.01 * np.sqrt(STEPS / 5000)
    parts = [
        results_of(values, task=task, metric=metric, higher=metric != "ppl")
        for task, metrics in (("piqa", ("acc_norm", "acc")), ("lambada", ("acc", "ppl")), ("mmlu_law", ("acc",)))
        for metric in metrics
    ]
    table = pd.concat(parts)

    def judged(*asked):
        return sorted((one.task, one.metric) for one in find_saturation(table, *asked))

    assert judged() == [("lambada", "ppl"), ("piqa", "acc")]
    assert len(judged("*")) == 5
    assert judged(None, "acc*") == [("lambada", "acc"), ("mmlu_law", "acc"), ("piqa", "acc"), ("piqa", "acc_norm")]
    # The mean of the parts is judged in their place; the mean of other tasks is none of its own.
    pairs = [(task, "acc") for task in ("mmlu", "mmlu_law", "suite", "piqa")]
    assert judged_scores(pairs, {"mmlu", "suite"}) == [("mmlu", "acc"), ("piqa", "acc")]
    assert judged_scores([("mmlu_law", "acc")]) == [("mmlu_law", "acc")]

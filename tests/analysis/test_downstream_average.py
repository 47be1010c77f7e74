"""The downstream average above chance, and how far a model lies above the line of the others."""

from __future__ import annotations

import numpy as np
import pytest
from score_tables import table_of

from lmsat_plugin.analysis.downstream_average import above_line, downstream_average


def test_downstream_average():
    rows = []
    for model, piqa, anatomy in (("a", 0.75, 0.25), ("b", 0.5, 0.4)):
        rows += [
            {"model": model, "task": "piqa", "metric": "acc", "value": piqa, "stderr": 0.01},
            {"model": model, "task": "piqa", "metric": "acc", "value": 0.99, "num_fewshot": 5},
            {"model": model, "task": "piqa", "metric": "acc_norm", "value": 0.99},
            {"model": model, "task": "hendrycksTest-anatomy", "metric": "acc", "value": anatomy, "stderr": 0.03},
            {"model": model, "task": "hendrycksTest-virology", "metric": "acc", "value": 0.25, "stderr": 0.0},
            {"model": model, "task": "nobody_knows", "metric": "acc", "value": 0.9},
        ]
    rows.append({"model": "a", "task": "winogrande", "metric": "acc", "value": 0.9})
    found = downstream_average(table_of(rows))
    assert found.tasks == ("hendrycksTest (2 subjects, acc, 0-shot)", "piqa (acc, 0-shot)")
    assert found.scores["a"][0] == pytest.approx((0.5 + 0) / 2)
    assert found.scores["b"][0] == pytest.approx((0 + (0.2 + 0) / 2) / 2)
    assert found.scores["a"][1] == pytest.approx(np.hypot(0.01 / 0.5 / 2, 0.03 / 0.75 / 4))
    assert downstream_average(table_of(rows[5:6])) is None
    measured = {"model": "a", "task": "nobody_knows", "metric": "chance", "value": 0.5}
    found = downstream_average(table_of([rows[5], measured]))
    assert found.scores["a"][0] == pytest.approx(0.8)


def test_groups_count_in_no_average_beside_their_members():
    """Of the Open LLM Leaderboard the parts count, each exam once; of its tables of contents the wholes."""
    gpqa = {"leaderboard_gpqa_main": 0.25, "leaderboard_gpqa_diamond": 0.4, "leaderboard_gpqa": 0.3}
    musr = {"leaderboard_musr_murder_mysteries": 0.75, "leaderboard_musr_object_placements": 0.2}
    math = {"leaderboard_math_hard": 0.5, "leaderboard_math_algebra_hard": 0.25, "leaderboard_math_geometry_hard": 0.5}
    rest = {"leaderboard_mmlu_pro": 0.55, "leaderboard_ifeval": 0.9, "minerva_math": 0.9, "minerva_math_algebra": 0.5}
    scores = {**gpqa, **musr, "leaderboard_musr": 0.5, **math, **rest, "leaderboard": 0.9}
    metrics = {"leaderboard": "exact_match", "leaderboard_ifeval": "prompt_level_strict_acc"}
    rows = [
        {
            "model": "a",
            "task": task,
            "metric": metrics.get(task, "exact_match" if "math" in task else "acc"),
            "value": value,
        }
        for task, value in scores.items()
    ]
    groups = {"leaderboard", "leaderboard_gpqa", "leaderboard_musr", "leaderboard_math_hard", "minerva_math"}
    found = downstream_average(table_of(rows), groups)
    means = [(0 + 0.15 / 0.75) / 2, (0.25 / 0.5 + 0) / 2, (0.25 + 0.5) / 2, 0.45 / 0.9, 0.5]
    assert found.scores["a"][0] == pytest.approx(np.mean(means))
    assert len(found.tasks) == 5
    (whole,) = (row for row in rows if row["task"] == "leaderboard_gpqa")
    assert downstream_average(table_of([whole]), groups).scores["a"][0] == pytest.approx(0.05 / 0.75)


def test_above_the_line_of_the_others():
    """Each point against a line refitted without it, with the textbook's error of a prediction."""
    rng = np.random.default_rng(3)
    x_K = rng.uniform(2, 4, 7)
    y_K = 1 - 0.2 * x_K + rng.normal(0, 0.02, 7)
    above_K, stderr_K = above_line(x_K, y_K)
    for index in range(7):
        x, y = np.delete(x_K, index), np.delete(y_K, index)
        line = np.polyfit(x, y, 1)
        assert above_K[index] == pytest.approx(y_K[index] - np.polyval(line, x_K[index]))
        spread = ((y - np.polyval(line, x)) ** 2).sum() / (6 - 2)
        distance = (x_K[index] - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
        assert stderr_K[index] == pytest.approx(np.sqrt(spread * (1 + 1 / 6 + distance)))
    assert above_line(x_K[:4], y_K[:4]) is None
    assert above_line(np.ones(6), y_K[:6]) is None
    assert above_line(np.array([1.0, 1, 1, 1, 2]), y_K[:5]) is None


def test_the_average_is_over_tasks_that_many_models_share():
    """One model with a single task, and one with other shots, leave the others' average as it is."""
    tasks = ("piqa", "winogrande", "arc_easy", "sciq")
    models = [f"m{number}" for number in range(5)]
    rows = [{"model": model, "task": task, "metric": "acc", "value": 0.6} for model in models for task in tasks]
    alone = {"model": "alone", "task": "piqa", "metric": "acc", "value": 0.6}
    shots = [{"model": "shots", "task": task, "metric": "acc", "value": 0.6, "num_fewshot": 5} for task in tasks]
    found = downstream_average(table_of([*rows, alone, *shots]))
    assert set(found.scores) == set(models)
    assert len(found.tasks) == len(tasks)
    assert found.lacking == ("alone", "shots")
    assert "lack some of these tasks: alone, shots" in found.method
    # Models that lack one task of several stay.
    found = downstream_average(table_of(rows[:-1]))
    assert (len(found.scores), len(found.tasks), found.lacking) == (5, 3, ())

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

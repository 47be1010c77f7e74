"""The figures of scaling: the curves of published laws, and the W-errors of all dimensions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin.analysis.scaling_laws import kaplan
from lmsat_plugin.analysis.scaling_laws.allocation import HOFFMANN
from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.scaling import allocation_figure, critical_batch_figure, overfitting_figure, w_error_figure


def test_published_laws():
    models = ModelLooks({"m": 1e8})
    row = {"model": ["m"], "n_params": [1e8], "n_params_non_embedding": [1e8], "tokens": [2e9], "flops": [1.2e18]}
    axes = allocation_figure(pd.DataFrame(row), models).axes[0]
    flops, n_opt = axes.get_lines()[1].get_data()
    # The least loss of Hoffmann's law at 6ND = C, by brute force.
    tried = np.geomspace(n_opt[20] / 3, n_opt[20] * 3, 20001)
    losses = HOFFMANN.loss(tried, flops[20] / (6 * tried))
    assert n_opt[20] == pytest.approx(tried[np.argmin(losses)], rel=1e-3)
    axes = overfitting_figure(pd.DataFrame(row), models).axes[0]
    n, tokens = axes.get_lines()[1].get_data()
    np.testing.assert_allclose(kaplan.overfitting(n, tokens), 0.02, rtol=1e-9)
    rows = pd.DataFrame({"model": "m", "loss": [2.5, 3.0], "value": [1e6, 5e5], "stderr": [1e5, 2e6]})
    axes = critical_batch_figure(rows, models).axes[0]
    law = axes.get_lines()[-1]
    assert np.interp(2.5, *law.get_data()) == pytest.approx(2.55e6, rel=0.01)
    assert axes.get_ylim()[0] > 0


def test_w_errors_of_all_dimensions_make_the_line():
    table = pd.DataFrame({"dimension": [64.0, 128.0], "value": [0.5, 0.25]})
    errors_D = np.linspace(1, 0, 200)
    [line] = [
        line
        for line in w_error_figure(table, [32], errors_D).axes[0].lines
        if line.get_label() == "the corpus' n-grams"
    ]
    dimensions = line.get_xdata()
    assert (dimensions[0], dimensions[-1]) == (1, 200)
    np.testing.assert_array_equal(line.get_ydata(), errors_D[dimensions - 1])

"""The bootstrap over runs: samples that can be fitted, and runs whose points stay together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from law_tables import chinchilla_table

from lmsat_plugin.analysis import fit
from lmsat_plugin.analysis.scaling_laws.resampling import draw_runs


def test_draws_are_of_runs_and_can_be_fitted():
    counts = draw_runs(np.array([0, 0, 1, 2]), 500, 3, 0)
    assert (counts.sum(1) == 3).all()
    assert ((counts > 0) @ [2, 1, 1] >= 3).all()
    assert ((counts > 0).sum(1) > 1).all()


def test_rows_of_a_run_travel_together():
    table = chinchilla_table(20)
    once = fit("chinchilla", table, repetitions=50)
    copies = fit("chinchilla", pd.concat([table] * 4), repetitions=50)
    assert copies.points.runs == 20
    assert copies.objective == pytest.approx(4 * once.objective, rel=1e-8)
    np.testing.assert_allclose(np.std(copies.theta_RQ, 0), np.std(once.theta_RQ, 0), rtol=1e-3)
    apart = pd.concat([table] * 4).assign(run=np.arange(80))
    assert np.std(fit("chinchilla", apart, repetitions=50).theta_RQ, 0)[0] < 0.75 * np.std(once.theta_RQ, 0)[0]

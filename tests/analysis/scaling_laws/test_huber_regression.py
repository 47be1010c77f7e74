"""Huber regression against brute force: the optimum, the valley around it, and condition numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from law_tables import chinchilla_table
from scipy.optimize import minimize
from scipy.special import huber, logsumexp

from lmsat_plugin.analysis import fit
from lmsat_plugin.analysis.scaling_laws.known_laws import CHINCHILLA

if TYPE_CHECKING:
    import pandas as pd


def brute_force(table: pd.DataFrame, starts: int) -> float:
    """Return the least sum of Huber losses that L-BFGS finds from many starts, in log-sum-exp form."""
    n, d, loss = (np.log(table[name].to_numpy()) for name in ("n_params", "tokens", "loss"))

    def objective(theta: np.ndarray) -> float:
        a, b, e, alpha, beta = theta
        predicted = logsumexp([a - alpha * n, b - beta * d, np.full_like(n, e)], axis=0)
        return 1e3 * float(huber(1e-3, predicted - loss).sum())

    rng = np.random.default_rng(0)
    ends = np.array([[0, 25], [0, 25], [-1, 1], [0, 2], [0, 2]])
    found = []
    for start in rng.uniform(*ends.T, (starts, 5)):
        for _ in range(3):
            result = minimize(objective, start, method="L-BFGS-B", options={"ftol": 1e-15, "maxfun": 20_000})
            start = result.x
        found.append(result.fun)
    return min(found) / 1e3


@pytest.mark.parametrize("seed", [0, 1])
def test_reaches_the_optimum_of_a_grid_of_starts(seed):
    table = chinchilla_table(seed=seed)
    found = fit("chinchilla", table, repetitions=0)
    best = brute_force(table, 12)
    assert found.objective <= best * (1 + 1e-6)
    assert found.objective >= best * (1 - 1e-3), "or the brute force is no rival"
    residuals = np.log(found.predict(table).rows.predicted) - np.log(table.loss)
    assert found.objective == pytest.approx(huber(1e-3, residuals).sum(), rel=1e-9)
    assert found.residual_rms == pytest.approx(np.sqrt((residuals**2).mean()))


def test_the_valley_holds_what_other_fits_reach():
    """Brute force: minima with alpha held a little off stay within the tolerance just so far as said."""
    table = chinchilla_table()
    found = fit("chinchilla", table, repetitions=0)
    low, high = found.spread.params["alpha"]
    for value, close in ((low, True), (high, True), (0.9 * low, False), (1.1 * high, False)):
        held = fit("chinchilla", table, {"alpha": value}, repetitions=0)
        assert (held.objective <= 1.01 * found.objective * (1 + 1e-9)) == close
    assert found.spread.best > found.spread.starts / 2


def test_condition_numbers():
    found = fit("chinchilla", chinchilla_table(), repetitions=0)
    jacobian = CHINCHILLA.form.log_losses(found.theta_RQ[:1], found.points.variables)[1][0]
    assert found.condition_number["all"] == pytest.approx(np.linalg.cond(jacobian))
    # The exponents' part of the triangular factor is what is orthogonal to the coefficients.
    assert found.condition_number["exponents"] == pytest.approx(np.linalg.cond(np.linalg.qr(jacobian)[1][3:, 3:]))

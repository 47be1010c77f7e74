"""What is particular to each law: how N, compute and steps are counted, what follows from it; draws of runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from law_tables import TRUE, chinchilla_table, noise, simulated
from scipy.optimize import minimize_scalar

from lmsat_plugin.analysis import fit
from lmsat_plugin.analysis.scaling_laws.laws import draw_runs
from lmsat_plugin.errors import LmsatError


def test_both_ways_to_count_are_fitted_the_papers_first():
    table, _ = simulated("kaplan-n")
    table = table.assign(n_params=table.n_params_non_embedding + 2e6)
    found = fit("kaplan-n", table, repetitions=0)
    assert [found.count, *(one.count for one in found.others)] == ["n_params_non_embedding", "n_params"]
    assert found.params["alpha_N"].value == pytest.approx(0.076, abs=0.002)
    assert found.others[0].params["alpha_N"].value > 0.085
    assert "all parameters" in found.others[0].warnings[0]
    both = fit(
        "chinchilla", chinchilla_table().assign(n_params_non_embedding=lambda t: t.n_params - 1e6), repetitions=0
    )
    assert [both.count, both.others[0].count] == ["n_params", "n_params_non_embedding"]


def test_compute_is_6nd_where_there_is_none():
    n = np.geomspace(1e6, 1e10, 12)
    table = pd.DataFrame({"model": n, "n_params_non_embedding": n, "tokens": 20 * n})
    table["loss"] = (1.6e7 / (6 * n * 20 * n / 8.64e19)) ** 0.057
    found = fit("kaplan-c", table, repetitions=0)
    assert found.params["C_c"].value == pytest.approx(1.6e7, rel=1e-4)
    assert "6ND" in found.notes[0]


@pytest.mark.parametrize("batch", ["batch_tokens", "tokens", None])
def test_steps_are_adjusted_to_s_min(batch):
    table, true = simulated("kaplan-ns", size=0)
    b_crit = 2e8 / table.loss ** (1 / 0.21)
    steps = table.s_min * (1 + b_crit / 2**19)
    adjusted = table.drop(columns="s_min").assign(steps=steps)
    if batch is not None:
        adjusted[batch] = 2**19 * (1 if batch == "batch_tokens" else steps)
    found = fit("kaplan-ns", adjusted, repetitions=0)
    right = found.params["S_c"].value == pytest.approx(true["S_c"], rel=1e-3)
    assert right == (batch is not None)
    assert ("cannot be adjusted" if batch is None else "B_crit") in found.notes[0]


def test_context_is_fitted_to_each_model():
    first, second = (simulated("context", seed=seed)[0] for seed in (7, 8))
    table = pd.concat([first.assign(model="a"), second.assign(model="b", loss=second.loss + 1)])
    found = fit("context", table, repetitions=30)
    assert [found.model, found.others[0].model] == ["a", "b"]
    assert found.params["a"].value == pytest.approx(2.3, abs=0.1)
    assert found.others[0].params["a"].value == pytest.approx(3.3, abs=0.1)
    rows = found.predict(table).rows
    assert abs(rows.gap).max() < 0.03
    with pytest.raises(LmsatError, match="no rows of a, b"):
        found.predict(table.assign(model="c"))


def test_zero_can_be_given():
    position = np.arange(1, 200)
    table = pd.DataFrame({"position": position, "loss": 5 * position**-0.2 * noise(199, 0)})
    found = fit("context", table, {"a": 0}, repetitions=0)
    slope, intercept = np.polyfit(np.log(position), np.log(table.loss), 1)
    assert found.params["c"].value == pytest.approx(-slope, rel=0.02)
    assert found.params["b"].value == pytest.approx(np.exp(intercept), rel=0.02)
    assert found.params["a"].value == 0


def test_transfer_tells_a_drift_from_a_constant_offset():
    table, _ = simulated("transfer", size=0)
    drifting = table.other_loss.copy()
    drifting[:] = table.loss + 0.6 + 0.03 * np.log2(table.step) + np.random.default_rng(0).normal(0, 0.002, 80)
    found = fit("transfer", table.assign(other_loss=drifting), repetitions=200)
    drift = found.derived["drift_per_doubling"]
    assert drift.low < 0.03 < drift.high
    assert drift.high - drift.low < 0.01
    assert "outside" in found.notes[0]
    lonely = table.assign(other_loss=drifting)[(table.model < 3) | (table.step == 8)]
    assert fit("transfer", lonely, repetitions=50).derived["drift_per_doubling"].low is None
    parallel = table.assign(other_loss=(table.loss + 0.7) * noise(80, 1, 0.002))
    found = fit("transfer", parallel, repetitions=200)
    assert found.params["slope"].low < 1 < found.params["slope"].high
    assert found.derived["offset_at_slope_1"].value == pytest.approx(0.7, abs=0.005)
    assert "within" in found.notes[0]


def test_compute_optimal_is_the_least_loss_of_a_compute():
    law = fit("chinchilla", chinchilla_table(), TRUE)
    largest = float((6 * law.points.values["N"] * law.points.values["D"]).max())
    for name, flops in (("gopher", 5.88e23), ("largest", largest)):

        def loss(log_n: float, flops: float = flops) -> float:
            n = np.exp(log_n)
            return TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / (flops / 6 / n) ** TRUE["beta"]

        best = minimize_scalar(loss, bounds=(np.log(1e6), np.log(1e14)), method="bounded", options={"xatol": 1e-9})
        tokens = flops / 6 / np.exp(best.x)
        assert law.derived[f"tokens_per_parameter_{name}"].value == pytest.approx(tokens / np.exp(best.x), rel=1e-4)
    assert law.derived["a"].value == pytest.approx(0.513, abs=5e-4)
    assert law.derived["a"].value + law.derived["b"].value == pytest.approx(1)


def test_results_tables_are_read():
    table = chinchilla_table(8)
    tidy = table.rename(columns={"loss": "value"}).assign(task="lmsat_loss", metric="loss", corpus="pile")
    found = fit("chinchilla", tidy, {"E": 1.8}, repetitions=0)
    assert found.objective == pytest.approx(fit("chinchilla", table, {"E": 1.8}, repetitions=0).objective)
    missing = pd.array([pd.NA] * 8, dtype="Int64")
    rows = found.predict(tidy.assign(step=missing)).to_dict()["predictions"]
    assert [row["step"] for row in rows] == [None] * 8
    assert [row["observed"] for row in rows] == table.loss.tolist()
    with pytest.raises(LmsatError, match="no lmsat_loss"):
        fit("chinchilla", tidy.assign(task="other"))


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

"""Learning curves of runs: against laws that are known, and scipy's fit."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from figure_checks import check_texts
from scipy.optimize import curve_fit

from lmsat_plugin.analysis import fit_curves
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures import plot

T = np.round(np.geomspace(100, 100_000, 50))


def saturating(t):
    return 2.0 + 30 * t**-0.4


def broken(t):
    return 20 * t**-0.25 * (1 + (t / 5000) ** (1 / 0.3)) ** (0.2 * 0.3)


def table(law, noise=0.004, seed=0, model="m"):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"model": model, "step": T, "loss": law(T) * np.exp(noise * rng.standard_normal(len(T)))})


def test_a_saturating_curve_is_that_of_scipy():
    data = table(saturating, seed=1)
    (found,) = fit_curves(data, at=1e6)
    theirs, _ = curve_fit(lambda t, e, b, c: np.log(e + b * t**-c), T, np.log(data.loss), p0=(2, 20, 0.5))
    assert found.form == "saturating"
    assert tuple(found.params.values()) == pytest.approx(theirs, rel=0.15)
    assert found.params["E"] + found.params["B"] * T ** -found.params["c"] == pytest.approx(
        theirs[0] + theirs[1] * T ** -theirs[2], rel=4e-3
    )
    assert found.final.low < saturating(1e6) < found.final.high
    assert found.deceleration.value is None
    assert found.held_out["low"] <= found.held_out["observed"] <= found.held_out["high"]


def test_a_broken_curve_slows_down_at_its_break():
    (found,) = fit_curves(table(broken), at=1e6)
    assert found.form == "broken"
    assert found.deceleration.value == pytest.approx(5000, rel=0.15)
    assert found.deceleration.low < 5000 < found.deceleration.high
    assert found.final.value == pytest.approx(broken(1e6), rel=0.02)
    assert found.params["c"] == pytest.approx(0.25, rel=0.05)


def test_intervals_cover_the_curve():
    found = [fit_curves(table(saturating, seed=seed), at=5e5, repetitions=80)[0].final for seed in range(15)]
    assert np.mean([one.low <= saturating(5e5) <= one.high for one in found]) >= 0.75


def test_what_cannot_be_fitted_is_refused():
    for data, sentence in (
        (table(saturating)[:8], "m has 8 checkpoints"),
        (table(saturating).assign(step=T + 0.5), "row 1 has step=100.5"),
        (table(saturating).assign(step=-T), "row 1 has step=-100"),
        (table(saturating).drop(columns="model"), "no column 'model'"),
    ):
        with pytest.raises(LmsatError, match=sentence):
            fit_curves(data)
    (flat,) = fit_curves(table(saturating).assign(loss=3.0), repetitions=20)
    assert flat.final.value == pytest.approx(3.0)


@pytest.mark.parametrize("law", [saturating, broken])
def test_the_figure_shows_the_curve_and_its_end(law):
    (found,) = fit_curves(table(law, noise=0.001), at=4e5, repetitions=20)
    np.testing.assert_allclose(found.losses_at(T), law(T), rtol=0.01)
    (axes,) = plot(found).axes
    data = [tuple(map(list, line.get_data())) for line in axes.lines]
    assert (list(found.t_K), list(found.losses_K)) in data
    curve = next(line for line in axes.lines if len(line.get_xdata()) > 100)
    assert curve.get_xdata()[-1] == pytest.approx(4e5)
    assert curve.get_ydata()[-1] == pytest.approx(found.final.value)
    assert any(y == [found.final.low, found.final.high] for _, y in data)
    dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == ([] if law is saturating else [found.deceleration.value])
    check_texts(plot([found, found]))


def test_the_command(tmp_path, capsys):
    pd.concat([table(saturating, model="a"), table(broken, model="b")]).to_csv(tmp_path / "runs.csv", index=False)
    arguments = ["fit", "curve", str(tmp_path / "runs.csv"), "--repetitions", "50", "--at", "300000"]
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [(row["model"], row["form"], row["at"]) for row in rows] == [("a", "saturating", 3e5), ("b", "broken", 3e5)]
    assert main(arguments) == 0
    assert "slows down at" in capsys.readouterr().out
    assert main([*arguments, "--figure", str(tmp_path / "f.png")]) == 0
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--robust"]) == 2
    assert "curve takes no --robust" in capsys.readouterr().err

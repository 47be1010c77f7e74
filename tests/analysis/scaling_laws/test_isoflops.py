"""Optima of equal compute: against a law whose exponents are known, and numpy's parabolas."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from figure_checks import check_texts

from lmsat_plugin.analysis import fit_isoflops
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures import plot

A, B, ALPHA, BETA = 406.4, 410.7, 0.34, 0.28
EXPONENT = BETA / (ALPHA + BETA)


def runs(noise=0.002, seed=0, wide=1.0) -> pd.DataFrame:
    """Return nine sizes around the best at each of six computes."""
    rng, rows = np.random.default_rng(seed), []
    for flops in np.geomspace(1e18, 1e21, 6):
        best = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (flops / 6) ** EXPONENT
        n = best * np.exp(np.linspace(-wide, wide, 9))
        loss = 1.69 + A / n**ALPHA + B / (flops / 6 / n) ** BETA
        rows.append(
            pd.DataFrame({"n_params": n, "tokens": flops / 6 / n, "loss": loss + noise * rng.standard_normal(9)})
        )
    return pd.concat(rows, ignore_index=True)


def test_the_exponents_of_a_known_law():
    found = fit_isoflops(runs(0.0))
    assert found.a.value == pytest.approx(EXPONENT, abs=0.003)
    assert found.a.value + found.b.value == pytest.approx(1)
    assert [one.n_points for one in found.computes] == [9] * 6


def test_minima_are_those_of_numpy():
    table = runs()
    first = table[:9]
    square, slope, _ = np.polyfit(np.log(first.n_params), first.loss, 2)
    (one, *_) = fit_isoflops(table, repetitions=0).computes
    assert one.n_opt == pytest.approx(np.exp(-slope / 2 / square))
    assert one.tokens == pytest.approx(one.flops / 6 / one.n_opt)
    assert one.low is one.high is None
    # The constants say the same parabola.
    parabola = one.loss + one.curvature * np.log(first.n_params / one.n_opt) ** 2
    np.testing.assert_allclose(
        parabola, np.polyval(np.polyfit(np.log(first.n_params), first.loss, 2), np.log(first.n_params))
    )


def test_intervals_cover():
    found = [fit_isoflops(runs(0.003, seed), repetitions=200).a for seed in range(60)]
    truth = fit_isoflops(runs(0.0), repetitions=0).a.value
    assert 0.8 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.98


def test_flops_of_the_table_and_computes_without_a_minimum():
    table = runs().assign(flops=np.repeat(np.geomspace(1e18, 1e21, 6), 9))
    table = table.drop(index=table.index[4:9]).drop(columns="tokens")
    found = fit_isoflops(table, repetitions=50)
    assert found.computes[0].n_opt is None
    assert "1e+18 FLOP: the least loss is not within the sizes" in found.warnings
    assert len(found.computes) == 6
    with pytest.raises(LmsatError, match="2 of 2 computes"):
        fit_isoflops(table[-18:])


def test_the_figure_shows_parabolas_and_minima():
    found = fit_isoflops(runs(wide=3.2), repetitions=50)
    losses, optima = plot(found).axes
    stars = [line for line in losses.lines if line.get_marker() == "*"]
    assert [line.get_xdata()[0] for line in stars] == [one.n_opt for one in found.computes]
    assert [line.get_ydata()[0] for line in stars] == [one.loss for one in found.computes]
    far = [line for line in losses.lines if line.get_markerfacecolor() == "none"]
    assert sum(len(line.get_xdata()) for line in far) == (~found.table.near).sum() > 0
    curves = [line for line in losses.lines if len(line.get_xdata()) > 100]
    assert [min(line.get_ydata()) for line in curves] == pytest.approx([one.loss for one in found.computes], rel=1e-3)
    slopes = [np.polyfit(*np.log(line.get_data()), 1)[0] for line in optima.lines if len(set(line.get_xdata())) == 2]
    assert slopes == pytest.approx([found.a.value])
    check_texts(plot(found))


def test_the_command(tmp_path, capsys):
    runs().to_csv(tmp_path / "runs.csv", index=False)
    assert main(["fit", "isoflop", str(tmp_path / "runs.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["a"]["low"] < EXPONENT < found["a"]["high"]
    assert main(["fit", "isoflop", str(tmp_path / "runs.csv")]) == 0
    assert "Size of least loss" in capsys.readouterr().out
    assert main(["fit", "isoflop", str(tmp_path / "runs.csv"), "--figure", str(tmp_path / "f.png")]) == 0
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert main(["fit", "isoflop", str(tmp_path / "runs.csv"), "--robust"]) == 2
    assert "isoflop takes no --robust" in capsys.readouterr().err

"""The report's figures of training: lines that hold the values, and the gaps to the law of the larger models."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from figure_checks import check_figure
from places import PYTHIA_LOSSES
from report_trees import STEPS, models_of, named, read_analyses
from result_trees import write_result, write_tree

from lmsat_plugin.page.sections import all_figures


def test_lines_hold_the_values(full_tree):
    axes = named(full_tree, "loss-by-step").draw().axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    x, y = lines["suite/model-1"].get_data()
    assert list(x) == [step for step in STEPS if step >= 100]
    tokens = 2e6 * np.asarray(x)
    law = 1.8 + 480 / 12e9**0.35 + 2000 / (tokens + 1e6) ** 0.37
    np.testing.assert_allclose(y, law, atol=0.02)
    stars = [line for line in axes.get_lines() if line.get_marker() == "*"]
    best = {(line.get_xdata()[0], line.get_ydata()[0]) for line in stars}
    assert (x[np.argmin(y)], min(y)) in best
    assert len(best) == 3


def test_the_extrapolation_is_that_of_the_law(tmp_path):
    for index, model in enumerate(models_of(9)):
        write_tree(tmp_path, [model], range(1000, 4000 * (1 + (index + 2) % 3), 500), tasks={})
    analyses = read_analyses(tmp_path)
    figures = all_figures(analyses)
    axes = named(figures, "extrapolation").draw().axes[0]
    law = analyses.law
    dashed = next(line for line in axes.get_lines() if line.get_linestyle() == "--")
    finals = analyses.final_losses().astype({"n_params": float, "tokens": float})
    params = {name: one.value for name, one in law.params.items()}
    predicted = (
        params["E"] + params["A"] / finals.n_params ** params["alpha"] + params["B"] / finals.tokens ** params["beta"]
    )
    order = np.argsort(6 * finals.n_params * finals.tokens)
    np.testing.assert_allclose(dashed.get_ydata(), predicted.to_numpy()[order], rtol=1e-6)
    small = finals[finals.model == "suite/model-0"].index[0]
    gap = 100 * (finals.loss[small] / predicted[small] - 1)
    assert gap > 3
    assert f"suite/model-0 {gap:+.2g} %" in named(figures, "extrapolation").alt
    for name in ("extrapolation", "law", "power-laws"):
        check_figure(named(figures, name).draw())


@pytest.mark.skipif(not PYTHIA_LOSSES.exists(), reason="needs the losses digitised from the paper")
def test_gaps_of_the_paper(tmp_path):
    for row in pd.read_csv(PYTHIA_LOSSES).to_dict("records"):
        losses = {"lmsat_loss": {"loss": (row["loss"], 0.015)}}
        write_result(tmp_path, row["model"], row["step"], losses, row["n_params"], "pile")
    analyses = read_analyses(tmp_path, tokens_per_step=2_097_152)
    given = {name for name, one in analyses.law.params.items() if one.given}
    assert given == {"E", "B", "beta"}
    assert analyses.law.points.runs == 6
    extrapolation = named(all_figures(analyses), "extrapolation")
    gaps = {name: float(gap) for name, gap in re.findall(r"(pythia-\w+) ([+-][\d.]+) %", extrapolation.alt)}
    # Godey et al. 2024, Fig. 1b, digitised, with A = 119.09 and alpha = 0.246.
    for name, gap in {"14m": 8.48, "31m": 9.39, "70m": 8.77, "160m": 4.88, "410m": -0.5, "1b": 0.26}.items():
        assert gaps[f"pythia-{name}"] == pytest.approx(gap, abs=1.0), name
    check_figure(extrapolation.draw())


def test_the_axis_of_singular_entropy_names_its_divergence(full_tree):
    figure = named(full_tree, "singular-entropy")
    assert figure.draw().axes[0].get_ylabel() == "KL(p‖u) (nats)"

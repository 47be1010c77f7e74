"""The report's figures of scaling: transfer between two corpora."""

from __future__ import annotations

import numpy as np
from figure_checks import check_figure
from report_trees import STEPS, models_of, named, read_analyses
from result_trees import write_result, write_tree

from lmsat_plugin.analysis.checkpoint_values import values_of
from lmsat_plugin.page.sections import all_figures
from lmsat_plugin.page.sections.scaling import PARTS


def test_two_corpora_stand_on_two_axes(tmp_path):
    models = models_of(6)
    write_tree(tmp_path, models, STEPS, tasks={})
    for model in models:
        for step in STEPS:
            loss = 2.0 + 10 / (step + 1) ** 0.2 + 1e7 / model.n_params
            write_result(tmp_path, model.name, step, {"lmsat_loss": {"loss": loss}}, model.n_params, "other")
    analyses = read_analyses(tmp_path, corpus="held-out")
    losses = values_of(analyses.table, "lmsat_loss", "loss")
    assert len(losses) == len(models) * len(STEPS)
    transfer = named(all_figures(analyses), "transfer")
    assert "other" in transfer.title
    found = analyses.transfer["other"]
    ours, theirs = found.points.values["loss"], found.points.losses_P
    assert f"{np.polyfit(ours, theirs, 1)[0]:.1f}" == f"{found.params['slope'].value:.1f}"
    assert f"{found.derived['offset_at_slope_1'].value:.3g} nats" in transfer.alt
    check_figure(transfer.draw())
    assert (
        not read_analyses(tmp_path, corpus="other").transfer
        or "transfer" not in read_analyses(tmp_path, corpus="other").missing
    )


def test_learning_curves_and_sizes_of_least_loss(tmp_path):
    """Three computes with four sizes each: a parabola of the loss about its least; losses fall along a power law."""
    for c, flops in enumerate(np.geomspace(1e17, 1e19, 3)):
        best = (flops / 6) ** 0.5 / 5
        for s, n in enumerate(np.geomspace(0.6, 1.6, 4) * best):
            steps = round(flops / (6 * n) / 10_000) * np.arange(1, 11) // 10
            final = 2 + 0.3 * np.log(n / best) ** 2 + 1e3 / flops**0.2
            for step in steps:
                loss = final * (1 + 0.5 * (steps[0] / step) ** 0.5 - 0.5 / 10**0.5)
                write_result(tmp_path, f"m{c}{s}", int(step), {"lmsat_loss": {"loss": loss}}, round(n))
    analyses = read_analyses(tmp_path, tokens_per_step=10_000)
    figures = [figure for part in PARTS if "_law" not in part.__name__ for figure in part(analyses)]
    curves = named(figures, "learning-curves")
    assert "9 of 12 models" in curves.title
    assert f"{analyses.curves[0].model} {analyses.curves[0].final.value:.4g}" in curves.alt
    check_figure(curves.draw())
    isoflops = named(figures, "isoflops")
    assert "to the power of 0.5" in isoflops.alt
    check_figure(isoflops.draw())

"""The report's figures of scaling: transfer between two corpora."""

from __future__ import annotations

import numpy as np
from figure_checks import check_figure
from report_trees import STEPS, models_of, named, read_analyses
from result_trees import write_result, write_tree

from lmsat_plugin.analysis.checkpoint_values import values_of
from lmsat_plugin.page.sections import all_figures


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

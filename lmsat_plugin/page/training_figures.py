"""The figures of training that results can fill: Godey et al. 2024."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.checkpoint_values import by_step, evenly, last_of, values_of
from lmsat_plugin.figures import trajectories as draw
from lmsat_plugin.figures.model_looks import spread
from lmsat_plugin.figures.rank import ranks_figure
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.words import each, listed, models_said, sizes_in, some_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmsat_plugin.analysis.analyses import Analyses

LOSS = "loss (nats per token)"
_PAPER = "Godey et al. 2024, "
_MOST_SPECTRA, _MOST_STEPS, _MOST_RANKS = 6, 80, 6


def trajectory_figures_of(analyses: Analyses) -> list[ReportFigure]:
    """Return the figures of losses and geometry in training, and of the LM head's rank."""
    parts = (_by_step, _extrapolation, _depth, _coloured, _spectra, _ranks)
    return [figure for part in parts for figure in part(analyses)]


def _by_step(analyses: Analyses) -> Iterator[ReportFigure]:
    best = {
        one.label: (float(one.best_step), one.best)
        for one in analyses.saturation
        if (one.task, one.metric) == ("lmsat_loss", "loss")
    }
    shown = (
        ("loss-by-step", "Loss", _PAPER + "Fig. 1a", "lmsat_loss", "loss", LOSS, False),
        ("anisotropy-by-step", "The last layer's anisotropy", "", "lmsat_anisotropy", "anisotropy_last",
         "last layer's anisotropy", False),
        ("singular-entropy", "Singular entropy of the LM head", _PAPER + "Fig. 5", "lmsat_head",
         "singular_entropy", "KL(p‖u) (nats)", True),
    )  # fmt: skip
    for name, what, source, task, metric, label, log in shown:
        title = f"{what} by training step"
        values = values_of(analyses.table, task, metric)
        rows = by_step(values[values.value > 0] if log else values)
        sizes = sizes_in(analyses.sizes, rows.model)
        if not sizes:
            continue
        said = each(last_of(rows), sizes, lambda row: f"ends at {row['value']:.4g}")
        marked = best if metric == "loss" else {}
        lowest = (
            f"{marked[model][1]:.4g} at step {marked[model][0]:.0f}" for model in sizes if model in marked
        )
        alt = f"{title} of {models_said(sizes)}: {said}"
        alt += f" (best {listed(lowest)})." if marked else "."
        yield ReportFigure(
            name, title, source, alt,
            partial(draw.by_step_figure, rows, sizes, label, marked, log),
        )  # fmt: skip


def _extrapolation(analyses: Analyses) -> Iterator[ReportFigure]:
    import pandas as pd

    law = analyses.law
    if law is None or law.count is None:
        return
    losses = values_of(analyses.table, "lmsat_loss", "loss").rename(columns={"value": "loss"})
    losses = losses[losses.tokens.notna() & (losses.tokens > 0) & losses[law.count].notna()]
    if losses.model.nunique() < 2:
        return
    losses = losses.astype({"tokens": "float64", law.count: "float64"}).sort_values(["model", "tokens"])
    final = losses.groupby("model").tail(1).assign(kind="final")
    best = losses.loc[losses.groupby("model").loss.idxmin()].assign(kind="best")
    best = best[~best.index.isin(final.index)]
    given = f" ({law.given} given)" if law.given else ""
    points = law.predict(pd.concat([final, best])).rows
    points = points.assign(flops=6 * points[law.count] * points.tokens)
    sizes = sizes_in(analyses.sizes, points.model)
    gaps = points[points.kind == "final"].set_index("model").gap
    said = (f"{model} {100 * gaps[model]:+.2g} %" for model in sizes)
    yield ReportFigure(
        "extrapolation",
        f"Losses against the law of the larger models{given}",
        _PAPER + "Fig. 1b",
        f"Final losses of {models_said(sizes)} above or below the law{given}: {listed(said)}.",
        lambda: draw.extrapolation_figure(points, sizes),
    )


def _depth(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = last_of(values_of(analyses.table, "lmsat_anisotropy", "anisotropy_last"))
    by_model = {}
    for model, path in zip(rows.model, rows.path, strict=True):
        values_L = analyses.array(path, "lmsat_anisotropy", "anisotropy/by_layer")
        if values_L is not None and values_L.ndim == 1 and len(values_L) > 1 and np.isfinite(values_L).all():
            by_model[model] = values_L
    if by_model:
        sizes = sizes_in(analyses.sizes, by_model)
        said = (f"{model} {by_model[model][-1]:.2g}" for model in sizes)
        yield ReportFigure(
            "anisotropy-by-depth",
            "Anisotropy by depth, at the last checkpoints",
            _PAPER + "Fig. 2",
            f"Anisotropy of the layers of {models_said(sizes)}, in the last layer: {listed(said)}.",
            lambda: draw.anisotropy_figure({model: by_model[model] for model in sizes}, sizes),
        )


def _coloured(analyses: Analyses) -> Iterator[ReportFigure]:
    anisotropy = by_step(values_of(analyses.table, "lmsat_anisotropy", "anisotropy_last"))
    anisotropy = anisotropy.rename(columns={"value": "anisotropy"})[["model", "step", "anisotropy"]]
    for name, what, task, metric, label in (
        ("loss-and-anisotropy", "Loss", "lmsat_loss", "loss", LOSS),
        (
            "wikitext-and-anisotropy",
            "WikiText perplexity",
            "wikitext",
            "word_perplexity",
            "perplexity per word",
        ),
    ):
        rows = by_step(
            by_step(values_of(analyses.table, task, metric)).merge(anisotropy, on=["model", "step"])
        )
        sizes = sizes_in(analyses.sizes, rows.model)
        if sizes:
            said = each(last_of(rows), sizes, lambda row: f"{row['anisotropy']:.2g} at {row['value']:.4g}")
            yield ReportFigure(
                name,
                f"{what} by training step, and the last layer's anisotropy",
                _PAPER + "Fig. 3",
                f"Anisotropy in the last layer of {models_said(sizes)} at the end: {said}.",
                partial(draw.loss_and_anisotropy_figure, rows, sizes, label),
            )


def _spectra(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = by_step(values_of(analyses.table, "lmsat_head", "singular_entropy"))
    sizes = sizes_in(analyses.sizes, rows.model)
    by_model = {}
    for model in spread(sizes, _MOST_SPECTRA):
        own = evenly(rows[rows.model == model], _MOST_STEPS)
        found = {
            step: values_S
            for step, path in own[["step", "path"]].itertuples(index=False)
            if (values_S := analyses.array(path, "lmsat_head", "head/singular_values")) is not None
            and values_S.ndim == 1 and len(values_S) > 2 and values_S[0] > 0
        }  # fmt: skip
        if len(found) > 1 and len({len(values_S) for values_S in found.values()}) == 1:
            by_model[model] = np.array(list(found)), list(found.values())
    if by_model:
        said = (f"{model} {spectra[-1][1] / spectra[-1][0]:.2g}" for model, (_, spectra) in by_model.items())
        yield ReportFigure(
            "singular-values",
            f"Singular values of the LM head in training{some_of(by_model, sizes)}",
            _PAPER + "Fig. 4",
            f"Singular values in units of the largest; the second at the end of training: {listed(said)}.",
            lambda: draw.singular_values_figure(by_model),
        )


def _ranks(analyses: Analyses) -> Iterator[ReportFigure]:
    last = {one.label: one for one in analyses.ranks if one.arrays and one.values["ranks"]}
    sizes = sizes_in(analyses.sizes, last)
    found = [last[model] for model in spread(sizes, _MOST_RANKS)]
    if found:
        needed = (
            f"{one.label} rank {one.values['rank_needed']:.0f}"
            for one in found
            if one.values["rank_needed"] is not None
        )
        yield ReportFigure(
            "rank",
            f"Loss and accuracy against the rank of the LM head{some_of(found, sizes)}",
            _PAPER + "Figs. 6 and 8",
            f"Within 1 % of the full loss from: {listed(needed) or 'no rank that was measured'}.",
            lambda: ranks_figure(found, analyses.sizes),
        )

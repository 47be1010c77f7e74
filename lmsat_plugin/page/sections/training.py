"""Which figures of losses and geometry in training the results can fill, and of the head's rank (Godey et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.checkpoint_values import by_axis, by_step, evenly, last_of, over_runs, spread, values_of
from lmsat_plugin.analysis.saturation.replicates import groups_of
from lmsat_plugin.figures import trajectories as draw
from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.rank import rank_needed_figure
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections.alt_text import by_model, count_of, listed, some_of
from lmsat_plugin.results.series import AXES

_LOSS = "loss (nats per token)"
_PAPER = "Godey et al. 2024, "
_MOST_SPECTRA, _MOST_STEPS, _MOST_RANKS = 6, 80, 6


def _by_step(analyses: Analyses) -> Iterator[ReportFigure]:
    of_loss = [result for result in analyses.saturation if (result.task, result.metric) == ("lmsat_loss", "loss")]
    pooled = {result.label for group in groups_of(of_loss).values() for result in group}
    best = {result.label: (float(result.best_at), result.best) for result in of_loss if result.label not in pooled}
    words = {result.label: result.place(result.best_at) for result in of_loss}
    shown = (
        ("loss-by-step", "Loss", _PAPER + "Fig. 1a", "lmsat_loss", "loss", _LOSS, False),
        ("anisotropy-by-step", "The last layer's anisotropy", "", "lmsat_anisotropy", "anisotropy_last",
         "last layer's anisotropy", False),
        ("singular-entropy", "Singular entropy of the LM head", _PAPER + "Fig. 5", "lmsat_head",
         "singular_entropy", "KL(p‖u) (nats)", True),
    )  # fmt: skip
    for name, what, source, task, metric, label, log in shown:
        values = values_of(analyses.table, task, metric)
        for axis, rows in by_axis(over_runs(by_step(values[values.value > 0] if log else values))):
            models = ModelLooks(analyses.group_sizes, rows.model)
            ends = by_model(last_of(rows), models.sizes, lambda row: f"ends at {row['value']:.4g}")
            marked = {model: best[model] for model in models.sizes if model in best} if metric == "loss" else {}
            lowest = (f"{value:.4g} at {words[model]}" for model, (_, value) in marked.items())
            yield ReportFigure(
                name=named(name, axis),
                title=f"{what} by {AXES[axis]}",
                source=source,
                alt=f"{what} by {AXES[axis]} of {count_of(models.sizes)}: {ends}"
                + (f" (best {listed(lowest)})." if marked else "."),
                draw=partial(draw.by_step_figure, rows, models, label, best=marked, log=log),
                panels=((task, metric),),
            )


def named(name: str, axis: str) -> str:
    """Return the name of a figure that is one of several on different axes."""
    return name if axis == "step" else f"{name}-on-{axis}"


def _extrapolation(analyses: Analyses) -> Iterator[ReportFigure]:
    law = analyses.law
    if law is None or law.count is None:
        return
    losses = values_of(analyses.table, "lmsat_loss", "loss").rename(columns={"value": "loss"})
    losses = losses[losses.tokens.notna() & (losses.tokens > 0) & losses[law.count].notna()]
    if losses.model.nunique() < 2:
        return
    losses = losses.astype({"tokens": "float64", law.count: "float64"})
    final = last_of(losses).assign(kind="final")
    best = losses.loc[losses.groupby("model").loss.idxmin()].assign(kind="best")
    best = best[~best.index.isin(final.index)]
    given = f" ({law.given} given)" if law.given else ""
    points = law.predict(pd.concat([final, best])).rows
    points = points.assign(flops=6 * points[law.count] * points.tokens)
    models = ModelLooks(analyses.sizes, points.model)
    gaps = points[points.kind == "final"].set_index("model").gap
    shown = listed(f"{model} {100 * gaps[model]:+.2g} %" for model in models.sizes)
    yield ReportFigure(
        name="extrapolation",
        title=f"Losses against the law of the larger models{given}",
        source=_PAPER + "Fig. 1b",
        alt=f"Final losses of {count_of(models.sizes)} above or below the law{given}: {shown}.",
        draw=lambda: draw.extrapolation_figure(points, models),
    )


def _by_depth(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = last_of(values_of(analyses.table, "lmsat_anisotropy", "anisotropy_last"))
    layers = {}
    for model, path in zip(rows.model, rows.path, strict=True):
        values_L = analyses.array(path, "lmsat_anisotropy", "anisotropy/by_layer")
        if values_L is not None and values_L.ndim == 1 and len(values_L) > 1 and np.isfinite(values_L).all():
            layers[model] = values_L
    if layers:
        models = ModelLooks(analyses.sizes, layers)
        layers = {model: layers[model] for model in models.sizes}
        last = listed(f"{model} {values_L[-1]:.2g}" for model, values_L in layers.items())
        yield ReportFigure(
            name="anisotropy-by-depth",
            title="Anisotropy by depth, at the last checkpoints",
            source=_PAPER + "Fig. 2",
            alt=f"Anisotropy of the layers of {count_of(layers)}, in the last layer: {last}.",
            draw=lambda: draw.anisotropy_figure(layers, models),
        )


def _loss_and_anisotropy(analyses: Analyses) -> Iterator[ReportFigure]:
    anisotropy = by_step(values_of(analyses.table, "lmsat_anisotropy", "anisotropy_last"))
    anisotropy = over_runs(anisotropy).rename(columns={"value": "anisotropy"})[["model", "step", "anisotropy"]]
    shown = (
        ("loss-and-anisotropy", "Loss", "lmsat_loss", "loss", _LOSS),
        ("wikitext-and-anisotropy", "WikiText perplexity", "wikitext", "word_perplexity",
         "perplexity per word"),
    )  # fmt: skip
    for name, what, task, metric, label in shown:
        values = over_runs(by_step(values_of(analyses.table, task, metric)))
        for axis, rows in by_axis(by_step(values.merge(anisotropy, on=["model", "step"]))):
            models = ModelLooks(analyses.group_sizes, rows.model)
            ends = by_model(last_of(rows), models.sizes, lambda row: f"{row['anisotropy']:.2g} at {row['value']:.4g}")
            yield ReportFigure(
                name=named(name, axis),
                title=f"{what} by {AXES[axis]}, and the last layer's anisotropy",
                source=_PAPER + "Fig. 3",
                alt=f"Anisotropy in the last layer of {count_of(models.sizes)} at the end: {ends}.",
                draw=partial(draw.loss_and_anisotropy_figure, rows, models, label),
            )


def _spectra(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = by_step(values_of(analyses.table, "lmsat_head", "singular_entropy"))
    models = ModelLooks(analyses.sizes, rows.model).sizes
    spectra = {}
    for model in spread(models, _MOST_SPECTRA):
        own = evenly(rows[rows.model == model], _MOST_STEPS)
        by_steps = {
            step: values_S
            for step, path in own[["step", "path"]].itertuples(index=False)
            if (values_S := analyses.array(path, "lmsat_head", "head/singular_values")) is not None
            and values_S.ndim == 1 and len(values_S) > 2 and values_S[0] > 0
        }  # fmt: skip
        if len(by_steps) > 1 and len({len(values_S) for values_S in by_steps.values()}) == 1:
            spectra[model] = np.array(list(by_steps)), list(by_steps.values())
    if spectra:
        second = listed(f"{model} {values[-1][1] / values[-1][0]:.2g}" for model, (_, values) in spectra.items())
        yield ReportFigure(
            name="singular-values",
            title=f"Singular values of the LM head in training{some_of(spectra, models)}",
            source=_PAPER + "Fig. 4",
            alt=f"Singular values in units of the largest; the second at the end of training: {second}.",
            draw=lambda: draw.singular_values_figure(spectra, axes_of=dict(zip(rows.model, rows.axis, strict=True))),
        )


def _rank(analyses: Analyses) -> Iterator[ReportFigure]:
    last = {result.label: result for result in analyses.ranks if result.arrays and result.values["ranks"]}
    models = ModelLooks(analyses.sizes, last).sizes
    results = [last[model] for model in spread(models, _MOST_RANKS)]
    if results:
        ranks = {result.label: result.values["rank_needed"] for result in results}
        needed = (f"{model} rank {rank:.0f}" for model, rank in ranks.items() if rank is not None)
        yield ReportFigure(
            name="rank",
            title=f"Loss and accuracy against the rank of the LM head{some_of(results, models)}",
            source=_PAPER + "Figs. 6 and 8",
            alt=f"Within 1 % of the full loss from: {listed(needed) or 'no rank that was measured'}.",
            draw=lambda: rank_needed_figure(results, analyses.sizes),
        )


PARTS = (_by_step, _extrapolation, _by_depth, _loss_and_anisotropy, _spectra, _rank)

"""Which figures of scaling the results can fill: losses by tokens and size, fitted laws, loss by context, transfer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.checkpoint_values import last_of, over_runs, values_of
from lmsat_plugin.analysis.scaling_laws import FittedLaw, fit
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures import scaling as draw
from lmsat_plugin.figures.context import context_figure
from lmsat_plugin.figures.law import fit_figure
from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections.alt_text import by_model, count_of, listed, some_of

_KAPLAN = "Kaplan et al. 2020, "
_LAWS = {
    **dict.fromkeys(("n_params_non_embedding", "n_params"), "kaplan-n"),
    **{"tokens": "kaplan-d", "flops": "kaplan-c"},
}
_LEAST_SPAN = 3
"""The least ratio of the largest to the smallest size, data or compute: below it an exponent means nothing."""
_LEAST_DRAWN, _LEAST_FITTED = 3, 4
"""The least models for a figure of final losses, and for a law."""
_REPETITIONS = 200


def losses_with_flops(analyses: Analyses) -> pd.DataFrame:
    """Return the losses of trained checkpoints, with ``flops``. Counts are float64, NaN where unknown."""
    rows = values_of(analyses.table, "lmsat_loss", "loss")
    counts = ("n_params", "n_params_non_embedding", "tokens", "step")
    rows = rows.assign(**{name: rows[name].astype("float64") for name in counts})
    size = rows.n_params_non_embedding.where(rows.n_params_non_embedding > 0, rows.n_params)
    return rows[~(rows.tokens <= 0)].assign(flops=6 * size * rows.tokens)


def final_losses_with_flops(analyses: Analyses) -> pd.DataFrame:
    """Return `losses_with_flops` at the last checkpoints of the models that did not diverge."""
    final = last_of(losses_with_flops(analyses))
    return final[~final.model.isin(analyses.diverged)]


def _curves(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = losses_with_flops(analyses)
    rows = rows[rows.tokens.notna()]
    rows = rows[rows.groupby("model").tokens.transform("nunique") > 1]
    models = ModelLooks(analyses.group_sizes, rows.group)
    if models.sizes:
        last = last_of(over_runs(rows, "tokens"))
        ends = by_model(last, models.sizes, lambda row: f"{row['value']:.4g} after {row['tokens']:.2g} tokens")
        axes = ["tokens", "flops"] if rows.flops.notna().any() else ["tokens"]
        yield ReportFigure(
            name="loss-by-tokens",
            title="Loss against tokens and compute",
            source=_KAPLAN + "Figs. 1 and 2",
            alt=f"Loss of {count_of(models.sizes)} in training: {ends}.",
            draw=lambda: draw.curves_figure(rows, models),
            panels=[("lmsat_loss", "loss") for _ in axes],
            axes=axes,
        )


def _power_laws(analyses: Analyses) -> Iterator[ReportFigure]:
    final = final_losses_with_flops(analyses).rename(columns={"value": "loss"})
    larger = final
    if len(final):
        larger = final[final.model.isin(analyses.final_losses(larger=True).model)]
    size = "n_params_non_embedding" if final.n_params_non_embedding.notna().all() else "n_params"
    columns = [name for name in (size, "tokens", "flops") if final[name].max() >= _LEAST_SPAN * final[name].min()]
    if columns and len(final) >= _LEAST_DRAWN:
        fits = {column: _fitted(column, larger) for column in columns}
        if size in fits and "tokens" in fits:
            # The law of data holds for models so large that their loss does not depend on their size.
            fits["tokens"] = None
        models = ModelLooks(analyses.sizes, final.model)
        exponents = (
            f"exponent {_exponent(law):.3g} in {draw.LABELS[column]}" for column, law in fits.items() if law is not None
        )
        yield ReportFigure(
            name="power-laws",
            title="Final losses against size, data and compute",
            source=_KAPLAN + "Fig. 1",
            alt=f"Final losses of {count_of(models.sizes)}; laws of those larger than all that saturate: "
            f"{listed(exponents) or 'none, of so few models'}.",
            draw=lambda: draw.power_laws_figure(final, fits, models),
        )


def _fitted(column: str, final: pd.DataFrame) -> FittedLaw | None:
    rows = final[final[column].notna()][["model", column, "loss"]]
    if len(rows) < _LEAST_FITTED or rows[column].max() < _LEAST_SPAN * rows[column].min():
        return None
    try:
        return fit(_LAWS[column], rows, repetitions=_REPETITIONS)
    except LmsatError:
        return None


def _exponent(law: FittedLaw) -> float:
    exponents = (param.value for name, param in law.params.items() if name.startswith("alpha"))
    return next(value for value in exponents if value is not None)


def _law(analyses: Analyses) -> Iterator[ReportFigure]:
    law = analyses.law
    if law is not None:
        constants = listed(
            f"{name} = {param.value:.4g}" for name, param in law.params.items() if param.value is not None
        )
        yield ReportFigure(
            name="law",
            title="The law L(N, D) of the models larger than all that saturate",
            source="Hoffmann et al. 2022, eq. 2",
            alt=f"{law.law.formula} fitted to {law.points.runs} models, which lie "
            f"{100 * law.residual_rms:.2g} % off it (root mean square): {constants}.",
            draw=lambda: fit_figure(law),
        )


def _context(analyses: Analyses) -> Iterator[ReportFigure]:
    results = analyses.context
    if results:
        last = {result.label: result.gain for result in results}
        ends = (f"{model} {gain.losses_K[0]:.3g} to {gain.losses_K[-1]:.3g}" for model, gain in last.items())
        yield ReportFigure(
            name="context",
            title=f"Loss by position in the context{some_of(last, analyses.models_with_contexts)}",
            source=_KAPLAN + "App. D.5",
            alt=f"Loss at the first and the last positions of the context: {listed(ends)}.",
            draw=lambda: context_figure(results, analyses.sizes),
        )


def _transfer(analyses: Analyses) -> Iterator[ReportFigure]:
    for number, (corpus, line) in enumerate(analyses.transfer.items()):
        offset = line.derived["offset_at_slope_1"].value
        yield ReportFigure(
            name="transfer" if number == 0 else f"transfer-{number + 1}",
            title=f"Loss on {corpus} against that on the corpus of this page",
            source=_KAPLAN + "Fig. 8",
            alt=f"The loss on {corpus} is {offset:.3g} nats per token above the other, if both fall alike; "
            f"the line through both has a slope of {line.params['slope'].value:.3g}.",
            draw=partial(fit_figure, line),
        )


PARTS = (_curves, _power_laws, _law, _context, _transfer)

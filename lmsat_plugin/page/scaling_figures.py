"""The figures of scaling that results can fill: Kaplan et al. 2020 and Hoffmann et al. 2022."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lmsat_plugin.analysis.checkpoint_values import last_of, values_of
from lmsat_plugin.analysis.scaling_laws import fit
from lmsat_plugin.analysis.scaling_laws.allocation import Chinchilla
from lmsat_plugin.analysis.scaling_laws.kaplan import critical_batch, data_needed
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures import scaling as draw
from lmsat_plugin.figures.context import contexts_figure
from lmsat_plugin.figures.law import fit_figure
from lmsat_plugin.figures.model_looks import FEW, spread
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.words import each, listed, models_said, sizes_in, some_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from lmsat_plugin.analysis.analyses import Analyses
    from lmsat_plugin.analysis.scaling_laws import FittedLaw

_PAPER = "Kaplan et al. 2020, "
_LAWS = {
    "n_params_non_embedding": "kaplan-n",
    "n_params": "kaplan-n",
    "tokens": "kaplan-d",
    "flops": "kaplan-c",
}
_LEAST_SPAN = 3
"""The largest size, data or compute over the least, below which a power of it means nothing."""
_LEAST_DRAWN, _LEAST_MODELS = 3, 4
"""Models whose losses are drawn against their sizes, and those that a law is fitted to."""
_REPETITIONS = 200


def scaling_figures_of(analyses: Analyses) -> list[ReportFigure]:
    """Return the figures of losses against size, data and compute, and of published laws."""
    parts = (
        _curves,
        _power_laws,
        _law,
        _context,
        _transfer,
        _overfitting,
        _critical_batch,
        _allocation,
        _w_error,
    )
    return [figure for part in parts for figure in part(analyses)]


def _losses(analyses: Analyses) -> pd.DataFrame:
    """Return the losses after training began, with ``flops``; counts are float64, NaN where unknown."""
    rows = values_of(analyses.table, "lmsat_loss", "loss")
    counts = ("n_params", "n_params_non_embedding", "tokens", "step")
    rows = rows.assign(**{name: rows[name].astype("float64") for name in counts})
    size = rows.n_params_non_embedding.where(rows.n_params_non_embedding > 0, rows.n_params)
    return rows[~(rows.tokens <= 0)].assign(flops=6 * size * rows.tokens)


def _curves(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = _losses(analyses)
    rows = rows[rows.tokens.notna()]
    rows = rows[rows.groupby("model").tokens.transform("nunique") > 1]
    sizes = sizes_in(analyses.sizes, rows.model)
    if sizes:
        said = each(last_of(rows), sizes, lambda row: f"{row['value']:.4g} after {row['tokens']:.2g} tokens")
        yield ReportFigure(
            "loss-by-tokens",
            "Loss against tokens and compute",
            _PAPER + "Figs. 1 and 2",
            f"Loss of {models_said(sizes)} in training: {said}.",
            lambda: draw.curves_figure(rows, sizes),
        )


def _power_laws(analyses: Analyses) -> Iterator[ReportFigure]:
    final = last_of(_losses(analyses)).rename(columns={"value": "loss"})
    larger = final
    if len(final):
        larger = final[final.model.isin(analyses.final_losses(larger=True).model)]
    size = "n_params_non_embedding" if final.n_params_non_embedding.notna().all() else "n_params"
    columns = [
        name for name in (size, "tokens", "flops") if final[name].max() >= _LEAST_SPAN * final[name].min()
    ]
    if columns and len(final) >= _LEAST_DRAWN:
        fits = {column: _fitted(column, larger) for column in columns}
        if size in fits:
            # The law of data is one of models large enough, whose losses do not depend on their size.
            fits |= {"tokens": None} if "tokens" in fits else {}
        sizes = sizes_in(analyses.sizes, final.model)
        said = (
            f"exponent {_exponent(law):.3g} in {draw.LABELS[column]}"
            for column, law in fits.items()
            if law is not None
        )
        yield ReportFigure(
            "power-laws",
            "Final losses against size, data and compute",
            _PAPER + "Fig. 1",
            f"Final losses of {models_said(sizes)}; laws of those larger than all that saturate: "
            f"{listed(said) or 'none, of so few models'}.",
            lambda: draw.power_laws_figure(final, fits, sizes),
        )


def _fitted(column: str, final: pd.DataFrame) -> FittedLaw | None:
    rows = final[final[column].notna()][["model", column, "loss"]]
    if len(rows) < _LEAST_MODELS or rows[column].max() < _LEAST_SPAN * rows[column].min():
        return None
    try:
        return fit(_LAWS[column], rows, repetitions=_REPETITIONS)
    except LmsatError:
        return None


def _exponent(law: FittedLaw) -> float:
    return next(
        one.value for name, one in law.params.items() if name.startswith("alpha") and one.value is not None
    )


def _law(analyses: Analyses) -> Iterator[ReportFigure]:
    law = analyses.law
    if law is not None:
        said = listed(
            f"{name} = {one.value:.4g}" for name, one in law.params.items() if one.value is not None
        )
        yield ReportFigure(
            "law",
            "The law L(N, D) of the models larger than all that saturate",
            "Hoffmann et al. 2022, eq. 2",
            f"{law.law.formula} fitted to {law.points.runs} models, which lie "
            f"{100 * law.residual_rms:.2g} % off it (root mean square): {said}.",
            lambda: fit_figure(law),
        )


def _context(analyses: Analyses) -> Iterator[ReportFigure]:
    if analyses.context:
        sizes = sizes_in(analyses.sizes, (one.label for one in analyses.context))
        drawn = spread(sizes, FEW)
        found = [one for model in drawn for one in analyses.context if one.label == model]
        last = {one.label: one.gain for one in found}
        said = (f"{model} {gain.losses_K[0]:.3g} to {gain.losses_K[-1]:.3g}" for model, gain in last.items())
        yield ReportFigure(
            "context",
            f"Loss by position in the context{some_of(drawn, sizes)}",
            _PAPER + "App. D.5",
            f"Loss at the first and the last positions of the context: {listed(said)}.",
            lambda: contexts_figure(found, analyses.sizes),
        )


def _transfer(analyses: Analyses) -> Iterator[ReportFigure]:
    for number, (corpus, line) in enumerate(analyses.transfer.items()):
        offset = line.derived["offset_at_slope_1"].value
        yield ReportFigure(
            "transfer" if number == 0 else f"transfer-{number + 1}",
            f"Loss on {corpus} against that on the corpus of this page",
            _PAPER + "Fig. 8",
            f"The loss on {corpus} is {offset:.3g} nats per token above the other, if both fall alike; "
            f"the line through both has a slope of {line.params['slope'].value:.3g}.",
            partial(fit_figure, line),
        )


def _overfitting(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = last_of(_losses(analyses))
    rows = rows[rows.tokens.notna() & (rows.n_params_non_embedding > 0)]
    if len(rows):
        sizes = sizes_in(analyses.sizes, rows.model)
        short = (rows.tokens < data_needed(rows.n_params_non_embedding.to_numpy())).sum()
        yield ReportFigure(
            "overfitting",
            "The data of the models, and what repeating it would cost",
            _PAPER + "eq. 4.3 and Fig. 9",
            f"By the published law {short} of {len(rows)} models have seen too few tokens to keep the loss within "
            "2 % of that of unlimited data, if they saw them again and again.",
            lambda: draw.overfitting_figure(rows, sizes),
        )


def _critical_batch(analyses: Analyses) -> Iterator[ReportFigure]:
    measured = values_of(analyses.table, "lmsat_gradient_noise", "critical_batch_tokens")
    losses = values_of(analyses.table, "lmsat_loss", "loss").rename(columns={"value": "loss"})
    rows = measured.merge(losses[["model", "revision", "loss"]], on=["model", "revision"])
    rows = rows[rows.value > 0]
    if len(rows):
        sizes = sizes_in(analyses.sizes, rows.model)
        said = each(
            last_of(rows),
            sizes,
            lambda row: f"{row['value']:.2g} tokens, {critical_batch(row['loss']):.2g} by the law",
        )
        yield ReportFigure(
            "critical-batch",
            "The critical batch by loss",
            _PAPER + "eq. 1.4 and Fig. 10",
            f"Critical batches of the last checkpoints: {said}.",
            lambda: draw.critical_batch_figure(rows, sizes),
        )


def _allocation(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = last_of(_losses(analyses))
    rows = rows[rows.n_params.notna() & rows.tokens.notna()]
    if len(rows):
        rows = rows.assign(flops=6 * rows.n_params * rows.tokens)
        sizes = sizes_in(analyses.sizes, rows.model)
        said = each(rows, sizes, lambda row: _ratio(row["tokens"] / row["n_params"]))
        yield ReportFigure(
            "allocation",
            "Size and compute of the models, and what laws advise",
            "Kaplan et al. 2020, Fig. 14; Hoffmann et al. 2022, Fig. 1",
            f"Tokens per parameter, of which Hoffmann et al. advise about 20: {said}.",
            lambda: draw.allocation_figure(rows, sizes, _own_law(analyses)),
        )


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _own_law(analyses: Analyses) -> Chinchilla | None:
    law = analyses.law
    if law is None:
        return None
    found = {name: law.params[name].value for name in ("A", "B", "E", "alpha", "beta")}
    known = {name: value for name, value in found.items() if value is not None and (value > 0 or name == "E")}
    return Chinchilla("fitted to these models", **known) if len(known) == len(found) else None


def _w_error(analyses: Analyses) -> Iterator[ReportFigure]:
    table = analyses.table[analyses.table.task == "lmsat_ngram"]
    curve = table[table.metric.str.fullmatch(r"w_error_\d+")]
    rows = curve[curve.path == curve.path.iloc[-1]] if len(curve) else curve
    if len(rows) > 1:
        all_D = analyses.array(rows.path.iloc[0], "lmsat_ngram", "ngram/w_error")
        rows = rows.assign(dimension=rows.metric.str.removeprefix("w_error_").astype("float64"))
        rows = rows.sort_values("dimension")
        known = analyses.table[analyses.table.hidden_size.notna()]
        widths = {str(model): int(width) for model, width in zip(known.model, known.hidden_size, strict=True)}
        said = (f"{value:.2g} at {at:.0f}" for at, value in zip(rows.dimension, rows.value, strict=True))
        yield ReportFigure(
            "w-error",
            "The dimensions that the corpus asks for",
            "Godey et al. 2024, Fig. 7",
            f"W-error of the corpus' n-grams by dimension: {listed(said)}.",
            lambda: draw.w_error_figure(rows, widths, all_D),
        )

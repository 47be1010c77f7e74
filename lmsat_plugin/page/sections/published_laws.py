"""Which figures of models beside published laws the results can fill, with titles: data, batch, best size, W-error."""

from __future__ import annotations

from collections.abc import Iterator

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.checkpoint_values import last_of, values_of
from lmsat_plugin.analysis.scaling_laws.allocation import Chinchilla
from lmsat_plugin.analysis.scaling_laws.kaplan import critical_batch, data_needed
from lmsat_plugin.figures import scaling as draw
from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections.alt_text import by_model, listed
from lmsat_plugin.page.sections.scaling import final_losses_with_flops


def _overfitting(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = final_losses_with_flops(analyses)
    rows = rows[rows.tokens.notna() & (rows.n_params_non_embedding > 0)]
    if len(rows):
        models = ModelLooks(analyses.sizes, rows.model)
        short = (rows.tokens < data_needed(rows.n_params_non_embedding.to_numpy())).sum()
        yield ReportFigure(
            name="overfitting",
            title="The data of the models, and what repeating it would cost",
            source="Kaplan et al. 2020, eq. 4.3 and Fig. 9",
            alt=f"By the published law {short} of {len(rows)} models have seen too few tokens to keep the loss within "
            "2 % of that of unlimited data, if they saw them again and again.",
            draw=lambda: draw.overfitting_figure(rows, models),
        )


def _critical_batch(analyses: Analyses) -> Iterator[ReportFigure]:
    measured = values_of(analyses.table, "lmsat_gradient_noise", "critical_batch_tokens")
    losses = values_of(analyses.table, "lmsat_loss", "loss").rename(columns={"value": "loss"})
    rows = measured.merge(losses[["model", "revision", "loss"]], on=["model", "revision"])
    rows = rows[rows.value > 0]
    if len(rows):
        models = ModelLooks(analyses.sizes, rows.model)
        batches = by_model(
            last_of(rows),
            models.sizes,
            lambda row: f"{row['value']:.2g} tokens, {critical_batch(row['loss']):.2g} by the law",
        )
        yield ReportFigure(
            name="critical-batch",
            title="The critical batch by loss",
            source="Kaplan et al. 2020, eq. 1.4 and Fig. 10",
            alt=f"Critical batches of the last checkpoints: {batches}.",
            draw=lambda: draw.critical_batch_figure(rows, models),
        )


def _allocation(analyses: Analyses) -> Iterator[ReportFigure]:
    rows = final_losses_with_flops(analyses)
    rows = rows[rows.n_params.notna() & rows.tokens.notna()]
    if len(rows):
        rows = rows.assign(flops=6 * rows.n_params * rows.tokens)
        models = ModelLooks(analyses.sizes, rows.model)
        ratios = by_model(rows, models.sizes, lambda row: _ratio(row["tokens"] / row["n_params"]))
        yield ReportFigure(
            name="allocation",
            title="Size and compute of the models, and what laws advise",
            source="Kaplan et al. 2020, Fig. 14; Hoffmann et al. 2022, Fig. 1",
            alt=f"Tokens per parameter, of which Hoffmann et al. advise about 20: {ratios}.",
            draw=lambda: draw.allocation_figure(rows, models, _own_law(analyses)),
        )


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _own_law(analyses: Analyses) -> Chinchilla | None:
    law = analyses.law
    if law is None:
        return None
    constants = {name: law.params[name].value for name in ("A", "B", "E", "alpha", "beta")}
    usable = {key: value for key, value in constants.items() if value is not None and (value > 0 or key == "E")}
    return Chinchilla(name="fitted to these models", **usable) if len(usable) == len(constants) else None


def _w_error(analyses: Analyses) -> Iterator[ReportFigure]:
    table = analyses.table[analyses.table.task == "lmsat_ngram"]
    curve = table[table.metric.str.fullmatch(r"w_error_\d+")]
    rows = curve[curve.path == curve.path.iloc[-1]] if len(curve) else curve
    if len(rows) > 1:
        all_D = analyses.array(rows.path.iloc[0], "lmsat_ngram", "ngram/w_error")
        rows = rows.assign(dimension=rows.metric.str.removeprefix("w_error_").astype("float64"))
        rows = rows.sort_values("dimension")
        widths = sorted(map(int, analyses.table.hidden_size.dropna().unique()))
        errors = (f"{value:.2g} at {at:.0f}" for at, value in zip(rows.dimension, rows.value, strict=True))
        yield ReportFigure(
            name="w-error",
            title="The dimensions that the corpus asks for",
            source="Godey et al. 2024, Fig. 7",
            alt=f"W-error of the corpus' n-grams by dimension: {listed(errors)}.",
            draw=lambda: draw.w_error_figure(rows, widths, all_D),
        )


PARTS = (_overfitting, _critical_batch, _allocation, _w_error)

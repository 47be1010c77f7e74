"""The laws that `fit` knows (`LAWS`): what follows from each one's constants, and the columns of a CSV it is made of.

`chinchilla` is of Hoffmann et al. 2022, `kaplan-n`, `kaplan-d`, `kaplan-c`, `kaplan-nd`, `kaplan-ns`, `context` (the
loss by position) and `transfer` (the loss on another corpus) are of Kaplan et al. 2020.
Shapes: P points, G runs, R repetitions, the first of them the estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.input_tables import as_floats, numbers
from lmsat_plugin.analysis.scaling_laws import kaplan
from lmsat_plugin.analysis.scaling_laws.allocation import Chinchilla
from lmsat_plugin.analysis.scaling_laws.forms import Line, PowerSum, Term
from lmsat_plugin.analysis.scaling_laws.laws import (
    COUNTS,
    NON_EMBEDDING,
    RUNS_BEYOND,
    TOTAL,
    Derive,
    Law,
    Points,
    Prepared,
)
from lmsat_plugin.analysis.stats.bootstrap import Estimate

if TYPE_CHECKING:
    import pandas as pd

GOPHER_FLOPS = 5.88e23
"""The compute of Gopher, for which Chinchilla was planned."""


def compute_optimal(values: Mapping[str, np.ndarray], points: Points, counts_RG: np.ndarray) -> dict[str, np.ndarray]:
    """Return a and b of N_opt ∝ C^a and D_opt ∝ C^b, and D_opt/N_opt at two computes (eq. 4).

    The computes C = 6ND are Gopher's, and the largest among the points. NaN for exponents that are not above 0.
    """
    constants: dict[str, Any] = dict(values)
    law = Chinchilla(name="fit", **constants)
    sound_R = (values["alpha"] > 0) & (values["beta"] > 0) & (values["A"] > 0) & (values["B"] > 0)
    derived = {}
    with np.errstate(all="ignore"):
        derived["a"], derived["b"] = law.exponent, 1 - law.exponent
        largest = float((6 * points.values["N"] * points.values["D"]).max())
        for name, flops in (("gopher", GOPHER_FLOPS), ("largest", largest)):
            derived[f"tokens_per_parameter_{name}"] = flops / 6 / np.square(law.n_opt(flops))
    return {name: np.where(sound_R, value_R, np.nan) for name, value_R in derived.items()}


CHINCHILLA = Law(
    name="chinchilla",
    formula="L = E + A/N^alpha + B/D^beta",
    form=PowerSum((Term("E"), Term("A", "alpha", "N"), Term("B", "beta", "D"))),
    columns={"N": TOTAL, "D": "tokens"},
    size="N",
    counts=(TOTAL, NON_EMBEDDING),
    derive=compute_optimal,
)
"""Eq. 2, fitted as in Sec. 3.3."""


def add_pf_days(table: pd.DataFrame, count: str | None) -> Prepared:
    """Add the column ``pf_days`` unless the table has it: from ``flops``, else 6ND."""
    if "pf_days" in table:
        return table, ()
    if "flops" in table:
        table = numbers(table, ["flops"])
        return table.assign(pf_days=table["flops"] / kaplan.PF_DAY), ()
    n = count or NON_EMBEDDING
    table = numbers(table, [n, "tokens"], positive=[n, "tokens"])
    note = f"the compute is 6ND, with N {COUNTS[n]}: there is no column pf_days or flops"
    return table.assign(pf_days=6 * table[n] * table["tokens"] / kaplan.PF_DAY), (note,)


def _kaplan(name: str, symbol: str, column: str, counts: tuple[str, ...] = ()) -> Law:
    scale, exponent = f"{symbol}_c", f"alpha_{symbol}"
    return Law(
        name=name,
        formula=f"L = ({scale}/{symbol})^{exponent}",
        form=PowerSum((Term(scale, exponent, symbol),), inside=True),
        columns={symbol: column},
        size=symbol,
        counts=counts,
    )


KAPLAN_N = _kaplan("kaplan-n", "N", NON_EMBEDDING, (NON_EMBEDDING, TOTAL))
"""Eq. 1.1, of models without embeddings trained to convergence on unlimited data."""
KAPLAN_D = _kaplan("kaplan-d", "D", "tokens")
"""Eq. 1.2, of large models stopped early on D tokens."""
KAPLAN_C = replace(_kaplan("kaplan-c", "C", "pf_days", (NON_EMBEDDING, TOTAL)), prepare=add_pf_days)
"""Eq. 3.3, with the compute that was spent, in PF-days."""
CONTEXT = Law(
    name="context",
    formula="L = a + b T^-c",
    form=PowerSum((Term("a"), Term("b", "c", "T"))),
    columns={"T": "position"},
    size="T",
    by_model=True,
)
"""Sec. D.5, of one model's loss at position T of the context, from 1 on."""


def add_s_min(table: pd.DataFrame, count: str | None) -> Prepared:
    """Add the column S_min unless the table has it: the steps, adjusted for the batch by eq. 5.4.

    The batch is the column ``batch_tokens``, else ``tokens`` over steps. Without either the steps are not adjusted.
    """
    if "s_min" in table:
        return table, ("S_min is the table's own",)
    steps = "step" if "step" in table and "steps" not in table else "steps"
    if "batch_tokens" not in table and ("tokens" not in table or table["tokens"].isna().all()):
        table = numbers(table, [steps])
        note = "S_min is the steps as they are: without a column batch_tokens they cannot be adjusted"
        return table.assign(s_min=table[steps]), (note,)
    batch = "batch_tokens" if "batch_tokens" in table else "tokens"
    table = numbers(table, [steps, batch, "loss"], positive=[steps, batch, "loss"])
    batch_P = table[batch] if batch == "batch_tokens" else table["tokens"] / table[steps]
    s_min_P = kaplan.s_min(table[steps].to_numpy(), batch_P.to_numpy(), table["loss"].to_numpy())
    note = (
        f"S_min is S / (1 + B_crit(L)/B), with B_crit(L) = {kaplan.B.scale:g} / L^(1/{kaplan.B.exponent:g}) tokens and "
        f"B {'the column batch_tokens' if batch == 'batch_tokens' else 'tokens over steps'}"
    )
    return table.assign(s_min=s_min_P), (note,)


def _alpha_n_over(exponent: str) -> Derive:
    """Return the function that derives alpha_N over another exponent."""
    return lambda values, points, counts_RG: {f"alpha_N_over_{exponent}": values["alpha_N"] / values[exponent]}


KAPLAN_ND = Law(
    name="kaplan-nd",
    formula="L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D",
    form=PowerSum((Term("N_c", "alpha_N", "N"), Term("D_c", "alpha_D", "D")), inside=True, outer="alpha_D"),
    columns={"N": NON_EMBEDDING, "D": "tokens"},
    size="N",
    counts=(NON_EMBEDDING, TOTAL),
    derive=_alpha_n_over("alpha_D"),
)
"""Eq. 1.5, of models stopped early on D tokens. Data that grow as N^(alpha_N/alpha_D) keep overfitting constant."""
KAPLAN_NS = Law(
    name="kaplan-ns",
    formula="L = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S",
    form=PowerSum((Term("N_c", "alpha_N", "N"), Term("S_c", "alpha_S", "S")), inside=True),
    columns={"N": NON_EMBEDDING, "S": "s_min"},
    size="N",
    counts=(NON_EMBEDDING, TOTAL),
    checkpoints=True,
    prepare=add_s_min,
    derive=_alpha_n_over("alpha_S"),
)
"""Eq. 1.6, of learning curves after the warm-up; steps are those of a batch far above the critical.

A model should stop at alpha_N/alpha_S, as a share, above its converged loss (App. B).
"""


def offsets(values: Mapping[str, np.ndarray], points: Points, counts_RG: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean offset over runs in nats, and its drift within runs in nats per doubling of the tokens.

    The offset is other_loss − loss, as if the slope were 1. The drift needs a column ``tokens`` or ``step`` and runs of
    several checkpoints; with few such runs it has no interval.
    """
    offsets_P = points.losses_P - points.values["loss"]
    means_G = np.bincount(points.runs_P, offsets_P) / np.bincount(points.runs_P)
    derived = {"offset_at_slope_1": counts_RG @ means_G / counts_RG.sum(1)}
    column = next((name for name in ("tokens", "step", "steps") if name in points.table), None)
    if column is None:
        return derived
    trained_P = as_floats(points.table[column]).to_numpy()
    drifts_G = np.full(points.runs, np.nan)
    for run in range(points.runs):
        of_run_P = (points.runs_P == run) & (trained_P > 0)
        doublings = np.log2(trained_P[of_run_P])
        if len(set(doublings)) > 1:
            drifts_G[run] = np.polyfit(doublings, offsets_P[of_run_P], 1)[0]
    known_G = np.isfinite(drifts_G)
    if known_G.any():
        with np.errstate(invalid="ignore"):
            drifts_R = counts_RG[:, known_G] @ drifts_G[known_G] / counts_RG[:, known_G].sum(1)
        if known_G.sum() <= RUNS_BEYOND:
            drifts_R[1:] = np.nan
        derived["drift_per_doubling"] = drifts_R
    return derived


def parallel(params: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Return a sentence on whether the slope's interval holds 1, which means a constant offset."""
    slope = params["slope"]
    if slope.low is None or slope.high is None:
        return ()
    inside = slope.low <= 1 <= slope.high
    return (f"a slope of 1, a constant offset, lies {'within' if inside else 'outside'} the slope's interval",)


TRANSFER = Law(
    name="transfer",
    formula="other_loss = offset + slope · loss",
    form=Line("loss"),
    columns={"loss": "loss"},
    size="loss",
    target="other_loss",
    checkpoints=True,
    derive=offsets,
    remark=parallel,
)
LAWS = {law.name: law for law in (CHINCHILLA, KAPLAN_N, KAPLAN_D, KAPLAN_C, KAPLAN_ND, KAPLAN_NS, CONTEXT, TRANSFER)}

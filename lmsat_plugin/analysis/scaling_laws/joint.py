"""The laws `kaplan-nd` and `kaplan-ns` of Kaplan et al. 2020, eqs. 1.5 and 1.6: loss by size and data, or steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.input_tables import numbers
from lmsat_plugin.analysis.scaling_laws import kaplan
from lmsat_plugin.analysis.scaling_laws.forms import PowerSum, Term
from lmsat_plugin.analysis.scaling_laws.laws import NON_EMBEDDING, TOTAL, Law, Points, Prepared


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


def _data_exponent(values: Mapping[str, np.ndarray], points: Points, counts_RG: np.ndarray) -> dict[str, np.ndarray]:
    """Return the exponent of the data that keep overfitting constant, D ∝ N^(alpha_N/alpha_D) (eq. 4.4)."""
    return {"alpha_N_over_alpha_D": values["alpha_N"] / values["alpha_D"]}


def _efficient_excess(values: Mapping[str, np.ndarray], points: Points, counts_RG: np.ndarray) -> dict[str, np.ndarray]:
    """Return how far above its converged loss a model should stop, as a share: alpha_N/alpha_S (App. B)."""
    return {"alpha_N_over_alpha_S": values["alpha_N"] / values["alpha_S"]}


KAPLAN_ND = Law(
    name="kaplan-nd",
    formula="L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D",
    form=PowerSum((Term("N_c", "alpha_N", "N"), Term("D_c", "alpha_D", "D")), inside=True, outer="alpha_D"),
    columns={"N": NON_EMBEDDING, "D": "tokens"},
    size="N",
    counts=(NON_EMBEDDING, TOTAL),
    derive=_data_exponent,
)
"""Eq. 1.5, of models stopped early on D tokens."""
KAPLAN_NS = Law(
    name="kaplan-ns",
    formula="L = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S",
    form=PowerSum((Term("N_c", "alpha_N", "N"), Term("S_c", "alpha_S", "S")), inside=True),
    columns={"N": NON_EMBEDDING, "S": "s_min"},
    size="N",
    counts=(NON_EMBEDDING, TOTAL),
    checkpoints=True,
    prepare=add_s_min,
    derive=_efficient_excess,
)
"""Eq. 1.6, of learning curves after the warm-up; steps are those of a batch far above the critical."""

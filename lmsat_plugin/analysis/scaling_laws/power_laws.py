"""Laws of one variable: `kaplan-n`, `kaplan-d`, `kaplan-c` (Kaplan et al. 2020) and `context`, the loss by position."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from lmsat_plugin.analysis.input_tables import numbers
from lmsat_plugin.analysis.scaling_laws.forms import PowerSum, Term
from lmsat_plugin.analysis.scaling_laws.kaplan import PF_DAY
from lmsat_plugin.analysis.scaling_laws.laws import COUNTS, NON_EMBEDDING, TOTAL, Law, Prepared


def add_pf_days(table: pd.DataFrame, count: str | None) -> Prepared:
    """Add the column ``pf_days`` unless the table has it: from ``flops``, else 6ND."""
    if "pf_days" in table:
        return table, ()
    if "flops" in table:
        table = numbers(table, ["flops"])
        return table.assign(pf_days=table["flops"] / PF_DAY), ()
    n = count or NON_EMBEDDING
    table = numbers(table, [n, "tokens"], positive=[n, "tokens"])
    note = f"the compute is 6ND, with N {COUNTS[n]}: there is no column pf_days or flops"
    return table.assign(pf_days=6 * table[n] * table["tokens"] / PF_DAY), (note,)


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

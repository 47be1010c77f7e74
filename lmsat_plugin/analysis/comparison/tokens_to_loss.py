"""The tokens that each of two models needs to reach the same loss, interpolated along their training.

Shapes: P checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmsat_plugin.analysis.comparison.by_pair import Side
from lmsat_plugin.analysis.comparison.measured import Measured
from lmsat_plugin.analysis.scaling_laws.efficiency import crossing_of

Curve = tuple[np.ndarray, np.ndarray]
"""Tokens seen, above 0 and rising, and losses, both of shape [P]."""


@dataclass(frozen=True, kw_only=True)
class TokensToLoss:
    """How many tokens a model and its reference need to reach the higher one of their losses."""

    reference: str
    model: str
    metric: str
    """``loss``, or ``bits_per_byte`` where tokenizers differ."""
    loss: float | None = None
    """In the unit of the metric."""
    a: float | None = None
    b: float | None = None
    """``a`` and ``b`` are the tokens of the reference and of the model."""
    at_most: tuple[str, ...] = ()
    """The models whose first checkpoint is there already, so that fewer tokens may suffice."""
    reason: str | None = None
    """Why the tokens are unknown."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)


def tokens_to_loss(sides: tuple[Side, Side], measured: tuple[Measured, Measured], metric: str) -> TokensToLoss:
    """Return the tokens at which the least loss so far, linear in ln(tokens), reaches the higher one of two losses.

    The losses are those of the checkpoints that are compared, at the end of each curve; of several runs the mean of
    the runs at the tokens that all have.
    """
    reference, model = sides[0].name, sides[1].name
    curves = []
    for side, own in zip(sides, measured, strict=True):
        if side.chosen.tokens.isna().all():
            reason = f"the results do not say how many tokens {side.name} has seen: give --tokens-per-step N"
            return TokensToLoss(reference=reference, model=model, metric=metric, reason=reason)
        curve = _curve(side, own, metric)
        if len(curve[0]) < 2:
            reason = f"{side.name} has one checkpoint, which does not say when a loss is reached"
            return TokensToLoss(reference=reference, model=model, metric=metric, reason=reason)
        curves.append(curve)
    loss = max(float(losses_P[-1]) for _, losses_P in curves)
    tokens: list[float | None] = []
    at_most = []
    for side, (tokens_P, losses_P) in zip(sides, curves, strict=True):
        crossing = crossing_of(losses_P, loss)
        tokens.append(None if crossing is None else crossing.at(tokens_P))
        if crossing is not None and crossing.after == 0:
            at_most.append(side.name)
    return TokensToLoss(
        reference=reference, model=model, metric=metric, loss=loss, a=tokens[0], b=tokens[1], at_most=tuple(at_most)
    )


def _curve(side: Side, measured: Measured, metric: str) -> Curve:
    """Return the losses along training that were measured as one result was, up to the checkpoints compared."""
    contender, own = side.contender, measured.task
    alike = {
        task.origin.path
        for task in contender.results.tasks
        if task.task == own.task and task.corpus_settings == own.corpus_settings and task.corpus == own.corpus
    }
    table = contender.table
    rows = table[(table.task == own.task) & (table.metric == metric) & table.path.isin(alike)]
    places = contender.until(side.chosen)[["model", "revision", "tokens"]]
    rows = rows[["model", "revision", "value"]].merge(places, on=["model", "revision"])
    rows = rows[(rows.tokens > 0) & np.isfinite(rows.value)]
    by_run = rows.pivot_table(index="tokens", columns="model", values="value").dropna().sort_index()
    return by_run.index.to_numpy("float64"), by_run.mean(axis=1).to_numpy("float64")

"""What a comparison of two models says in words."""

from __future__ import annotations

from collections.abc import Sequence

from lmsat_plugin.analysis.comparison.by_pair import MetricDifference
from lmsat_plugin.analysis.comparison.tokens_to_loss import TokensToLoss
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT
from lmsat_plugin.metrics import metric as metric_named

_UNITS = {"nats per token": "nats/token", "bits per byte": "bits/byte"}
_NAMES = {"loss": "loss", "bits_per_byte": "loss in bits per byte"}
_SMALL_P = 1e-4


def sentence_on(rows: Sequence[MetricDifference]) -> str:
    """Return what two models' differences say, the loss first.

    ``rows`` are of one pair of models, with corrected p.
    """
    losses = [row for row in rows if row.metric in _NAMES and row.p is not None]
    scores = [row for row in rows if row.metric not in _NAMES and row.p is not None]
    said = [_on_one(row, len({row.corpus for row in losses}) > 1) for row in losses]
    if len(scores) == 1 and not losses:
        said.append(_on_one(scores[0]))
    elif scores:
        said.append(_on_scores(scores))
    if not said:
        first = rows[0]
        reasons = {f"{row.task} {row.metric}: {row.reason}" for row in rows if row.reason}
        reason = next(iter(reasons)) if len(reasons) == 1 else f"{first.task} {first.metric}: {first.reason}"
        more = f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        said.append(f"{first.model} is not compared with {first.reference} ({reason}{more}).")
    return " ".join(said)


def _on_one(row: MetricDifference, several: bool = False) -> str:
    """Return what one difference says; of ``several`` corpora each is named."""
    assert row.difference is not None
    unit = _UNITS.get(metric_named(row.metric).unit, "")
    name = _NAMES.get(row.metric, f"{row.metric} of {row.task}")
    if several:
        name = f"{name} on {row.corpus}"
    if row.difference == 0:
        return f"{row.model}'s {name} equals {row.reference}'s, {p_in_words(row.p)}."
    lower = row.difference < 0
    size = f"{abs(row.difference):.3g}{f' {unit}' if unit else ''} {'lower' if lower else 'higher'}"
    text = f"{row.model}'s {name} is {size} than {row.reference}'s{_interval(row)}, {p_in_words(row.p)}"
    if row.p is not None and row.p > SIGNIFICANT:
        could = "" if row.mde is None else f", where {row.mde:.3g} would be found with a power of 80 %"
        return f"{text}: no difference is shown{could}."
    return f"{text}."


def _interval(row: MetricDifference) -> str:
    """Return the 95 % interval, in the direction that the sentence names."""
    assert row.difference is not None
    if row.low is None or row.high is None:
        return ""
    if row.low < 0 < row.high:
        return f" (from {-row.low:.3g} lower to {row.high:.3g} higher)"
    ends = sorted((abs(row.low), abs(row.high)))
    return f" ({ends[0]:.3g} to {ends[1]:.3g})"


def _on_scores(rows: Sequence[MetricDifference]) -> str:
    better = [row for row in rows if row.better == row.model]
    worse = [row for row in rows if row.better == row.reference]
    model, reference = rows[0].model, rows[0].reference
    if not better and not worse:
        return f"{model} differs from {reference} in none of {len(rows)} scores."
    counted = [
        f"{word} in {len(found)} ({_listed(found)})" for word, found in (("better", better), ("worse", worse)) if found
    ]
    return f"Of {len(rows)} scores, {model} is {' and '.join(counted)} than {reference}."


def _listed(rows: Sequence[MetricDifference]) -> str:
    names = [f"{row.task} {row.metric}" for row in rows]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def p_in_words(p: float | None) -> str:
    """Return a p-value as ``p = 0.03``."""
    if p is None:
        return "p unknown"
    return f"p ≤ {_SMALL_P:g}" if p <= _SMALL_P else f"p = {p:.2g}"


def sentence_on_tokens(found: TokensToLoss) -> str:
    """Return the tokens that both models need, in words."""
    if found.reason is not None:
        return f"Tokens to reach a common loss are unknown: {found.reason}."
    needs = {found.reference: found.a, found.model: found.b}
    parts = [
        f"{name} never gets there"
        if tokens is None
        else f"{name} needs {'at most ' if name in found.at_most else ''}{tokens:.3g} tokens"
        for name, tokens in needs.items()
    ]
    unit = _UNITS[metric_named(found.metric).unit]
    times = f"{found.b / found.a:.2g}" if found.a and found.b and not found.at_most else None
    ratio = "" if times is None else ", about as many" if times == "1" else f", {times} times as many"
    return f"To reach {found.loss:.4g} {unit}, {parts[0]} and {parts[1]}{ratio}."

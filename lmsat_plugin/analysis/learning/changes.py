"""The change of the loss between two checkpoints on one text, token by token: how much cancels, and who gets worse.

Shapes: N tokens, G units that a text is parted into, such as its documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmsat_plugin.analysis.learning.checkpoint_losses import CheckpointLosses
from lmsat_plugin.text.frequencies import THIRDS, thirds_in_order

POSITIONS = ("early", "middle", "late")


@dataclass(frozen=True, kw_only=True)
class PartChange:
    """The change of the loss of one part of the tokens: a third by frequency or by position in the context."""

    tokens: int | None
    """None where unknown."""
    change: float
    """The mean change of the loss, nats per token."""
    worse: float | None = None
    """The share of its tokens whose loss rises."""
    rise_share: float | None = None
    """Its share of the sum of all rises; None where no loss rises."""
    interference: float | None = None
    """D among its tokens."""


@dataclass(frozen=True, kw_only=True)
class LossChange:
    """How the loss changes from one checkpoint to the next."""

    before: float
    """The place of the first checkpoint on the axis of its run."""
    at: float
    """That of the second."""
    loss_before: float
    loss: float
    """``loss_before`` and ``loss`` are in nats per token."""
    change: float
    """Their difference; below 0 where the loss falls."""
    interference: float | None
    """D = 1 − |Σ Δℓ| / Σ |Δℓ| over tokens: 0 where all change in one direction, 1 where the changes cancel."""
    interference_at_least: float | None
    """What D is at least, where single tokens are not known: D of the sums by document or by position."""
    worse: float | None
    """The share of tokens whose loss rises."""
    parts: dict[str, PartChange]
    """By ``frequent, medium, rare`` and ``early, middle, late``, as far as they are known."""
    reason: str | None
    """Why ``interference`` is None; None where it is known."""

    @property
    def rising_parts(self) -> list[str]:
        """The parts whose loss rises while the mean over all tokens falls."""
        return [name for name, part in self.parts.items() if self.change < 0 < part.change]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "rising_parts": self.rising_parts}


def interference(changes_G: np.ndarray) -> float | None:
    """Return D = 1 − |Σ Δ| / Σ |Δ|; None where nothing changes (Mircea et al. 2025, arXiv 2506.05447).

    Of sums over units of several tokens it is at most that of the tokens, by the triangle inequality.
    """
    total = float(np.abs(changes_G).sum(dtype=np.float64))
    # Rounding may leave −1e-16.
    return max(1 - abs(float(changes_G.sum(dtype=np.float64))) / total, 0.0) if total else None


def change_between(first: CheckpointLosses, second: CheckpointLosses) -> LossChange:
    """Return the change between two checkpoints that were measured on the same text, in the same windows."""
    known = {"before": first.at, "at": second.at, "loss_before": first.loss, "loss": second.loss}
    reason = first.reason or second.reason
    if reason is None:
        losses_N = [one.arrays["by_token"].astype(np.float64) for one in (first, second)]
        return _of_tokens(losses_N[1] - losses_N[0], second, known)
    bounds = [bound for sums_G in _sums(first, second) if (bound := interference(sums_G)) is not None]
    return LossChange(
        **known,
        change=second.loss - first.loss,
        interference=None,
        interference_at_least=max(bounds, default=None),
        worse=None,
        parts={**_frequencies(first, second), **_positions(first, second)},
        reason=reason,
    )


def _of_tokens(changes_N: np.ndarray, second: CheckpointLosses, known: dict[str, float]) -> LossChange:
    parts: dict[str, PartChange] = {}
    rises = float(changes_N[changes_N > 0].sum())
    of_positions_N = None
    if (positions_N := second.positions_N) is not None:
        of_positions_N = thirds_in_order(np.bincount(positions_N))[positions_N]
    for names, classes_N in ((THIRDS, second.thirds_N), (POSITIONS, of_positions_N)):
        for number, name in enumerate(names if classes_N is not None else ()):
            own_N = changes_N[classes_N == number]
            if len(own_N):
                parts[name] = PartChange(
                    tokens=len(own_N),
                    change=float(own_N.mean()),
                    worse=float((own_N > 0).mean()),
                    rise_share=float(own_N[own_N > 0].sum()) / rises if rises else None,
                    interference=interference(own_N),
                )
    cancelling = interference(changes_N)
    return LossChange(
        **known,
        change=float(changes_N.mean()),
        interference=cancelling,
        interference_at_least=None,
        worse=float((changes_N > 0).mean()),
        parts=parts,
        reason="no token's loss changes" if cancelling is None else None,
    )


def _sums(first: CheckpointLosses, second: CheckpointLosses) -> Iterator[np.ndarray]:
    """Yield the change of the sum of the losses, by document and by position, where both have it."""
    one, other = first.arrays, second.arrays
    if {"by_document", "by_document_tokens"} <= one.keys() & other.keys() and np.array_equal(
        one["by_document_tokens"], other["by_document_tokens"]
    ):
        yield other["by_document"] - one["by_document"]
    if (by_position := _by_position(first, second)) is not None:
        changes_P, tokens_P = by_position
        yield changes_P * tokens_P


def _by_position(first: CheckpointLosses, second: CheckpointLosses) -> tuple[np.ndarray, np.ndarray] | None:
    one, other = first.arrays, second.arrays
    if not {"by_position", "by_position_tokens"} <= one.keys() & other.keys():
        return None
    tokens_P = other["by_position_tokens"]
    if not np.array_equal(tokens_P, one["by_position_tokens"]):
        return None
    return np.where(tokens_P > 0, other["by_position"] - one["by_position"], 0.0), tokens_P


def _positions(first: CheckpointLosses, second: CheckpointLosses) -> dict[str, PartChange]:
    found = _by_position(first, second)
    if found is None:
        return {}
    changes_P, tokens_P = found
    classes_P = thirds_in_order(tokens_P)
    parts = {}
    for number, name in enumerate(POSITIONS):
        own_P = classes_P == number
        if tokens := int(tokens_P[own_P].sum()):
            parts[name] = PartChange(tokens=tokens, change=float((changes_P * tokens_P)[own_P].sum()) / tokens)
    return parts


def _frequencies(first: CheckpointLosses, second: CheckpointLosses) -> dict[str, PartChange]:
    parts = {}
    for name in THIRDS:
        one, other = (checkpoint.metrics.get(f"loss_{name}", np.nan) for checkpoint in (first, second))
        if np.isfinite(other - one):
            parts[name] = PartChange(tokens=None, change=float(other - one))
    return parts

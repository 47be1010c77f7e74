"""The head rank at which the loss is close to that of the full head, with its interval.

Shapes: K ranks, M documents, R repetitions of the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.rank_needed.rank_curve import RankCurve
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, interval, resampled_sums
from lmsat_plugin.errors import LmsatError


@dataclass(frozen=True)
class RankNeeded:
    """The head rank at which the loss is close to that of the full head, with its interval."""

    within: float
    rank: float | None
    """None if no measured rank is enough."""
    low: float | None
    high: float | None
    """``low`` and ``high`` are None beyond the highest rank measured, and for a single document."""
    confidence: float
    at_most: bool
    """Whether the lowest rank measured is enough, so that a lower one may be, too."""

    @property
    def reached(self) -> bool:
        """Whether a measured rank is enough."""
        return self.rank is not None


def rank_needed(
    curve: RankCurve, within: float = 0.01, confidence: float = CONFIDENCE, repetitions: int = 1000, seed: int = 0
) -> RankNeeded:
    """Return the rank at which the loss is (1 + within) times that of the full head, a real number.

    The loss at a rank counts as the least of the losses at this and all lower ranks, and between neighbouring ranks as
    linear in ln r. The interval is of percentiles over samples of documents drawn with replacement, each with its own
    full loss. Raises `LmsatError` for a share below 0 or a confidence that is not between 0 and 1.
    """
    if not 0 <= within < np.inf or not 0 < confidence < 1:
        raise LmsatError(
            f"within={within:g} with confidence={confidence:g} is out of range: "
            "give a share of the full loss from 0 on, and a confidence between 0 and 1"
        )
    sums_MX = np.column_stack([curve.tokens_M, curve.full_nats_M, curve.nats_KM.T]).astype(np.float64)
    rank = float(_crossings(curve.ranks_K, sums_MX.sum(0, keepdims=True), within)[0])
    ends = None
    if len(sums_MX) > 1:
        # A rank beyond the highest one measured is infinite.
        ends = interval(
            _crossings(curve.ranks_K, resampled_sums(sums_MX, repetitions, seed), within), confidence=confidence
        )
    low, high = ends or (np.inf, np.inf)
    return RankNeeded(
        within=within,
        rank=_known(rank),
        low=_known(low),
        high=_known(high),
        confidence=confidence,
        at_most=rank == curve.ranks_K[0],
    )


def _crossings(ranks_K: np.ndarray, sums_RX: np.ndarray, within: float) -> np.ndarray:
    """Return the rank needed by each row of sums (tokens, full nats, nats by rank), infinite if none is enough."""
    losses_RK = np.minimum.accumulate(sums_RX[:, 2:] / sums_RX[:, :1], axis=1)
    targets_R = (1 + within) * sums_RX[:, 1] / sums_RX[:, 0]
    enough_RK = losses_RK <= targets_R[:, None]
    after_R = np.where(enough_RK.any(1), enough_RK.argmax(1), len(ranks_K))
    needed_R = np.full(len(sums_RX), np.inf)
    needed_R[after_R == 0] = ranks_K[0]
    between = np.flatnonzero((after_R > 0) & (after_R < len(ranks_K)))
    after = after_R[between]
    above, below = losses_RK[between, after - 1], losses_RK[between, after]
    share = (above - targets_R[between]) / (above - below)
    logarithms = np.log(ranks_K)
    needed_R[between] = np.exp((1 - share) * logarithms[after - 1] + share * logarithms[after])
    return needed_R


def _known(rank: float) -> float | None:
    return float(rank) if np.isfinite(rank) else None

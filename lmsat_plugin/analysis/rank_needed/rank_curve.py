"""The losses of a model with LM heads of several ranks, from arrays of lmsat_rank_head, and the rank that it needs.

Shapes: K ranks, M documents, S singular values, R repetitions of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_number, check_share, check_simulation
from lmsat_plugin.analysis.rank_needed.dimension import w_error
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, interval, resampled_sums
from lmsat_plugin.analysis.stats.ratio import ratio_stderr
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import pandas as pd

_BY_DOCUMENT = {
    "trained": "trained_by_document",
    "weighted": "weighted_truncated_by_document",
    "truncated": "truncated_by_document",
}
CURVES = tuple(_BY_DOCUMENT)
"""Heads trained at each rank; the head truncated in the metric of its hidden states; the head truncated as it is."""


@dataclass(frozen=True, eq=False)
class RankCurve:
    """Losses of one model with LM heads of K ranks, on the same M documents (Godey et al. 2024, Sec. 5.1, Fig. 6)."""

    name: str
    """One of `CURVES`."""
    ranks_K: np.ndarray
    """Rising, int64."""
    nats_KM: np.ndarray
    """−Σ ln p over the tokens of each document, with the head of each rank."""
    tokens_M: np.ndarray
    full_nats_M: np.ndarray
    """−Σ ln p over the tokens of each document, with the model's own head."""
    bound_K: np.ndarray | None = None
    """Upper bound of the gap of the best head of each rank, in nats per token; None where unknown."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str | None = None) -> RankCurve:
        """Return a curve from the arrays of ``lmsat_rank_head``, by default the first of `CURVES` that they hold.

        A bound of a truncated head's gap bounds the gap of the best head of that rank, too: trained heads get the
        smaller of two bounds. Ranks whose heads diverged in training are left out. Raises `LmsatError` for arrays that
        are missing, do not belong together, or have no finite loss.
        """
        own = {key.removeprefix("rank_head/"): value for key, value in arrays.items()}
        if name is None:
            name = next((curve for curve in CURVES if _BY_DOCUMENT[curve] in own), "truncated")
        if name not in _BY_DOCUMENT:
            raise LmsatError(f"'{name}' is not a curve of lmsat_rank_head: give one of {', '.join(CURVES)}")
        if name == "trained" and _BY_DOCUMENT[name] not in own:
            raise LmsatError(
                "no heads were trained: run lmsat_rank_head with train_tokens=N, or take the weighted curve"
            )
        needed = ("ranks", _BY_DOCUMENT[name], "by_document_tokens", "full_by_document")
        if missing := [key for key in needed if key not in own]:
            raise LmsatError(f"the arrays lack rank_head/{missing[0]}: run lmsat_rank_head again")
        ranks, nats, tokens, full = (np.asarray(own[key]) for key in needed)
        kinds = {"trained": ("", "weighted_"), "weighted": ("weighted_",), "truncated": ("",)}[name]
        bounds = [own[key] for kind in kinds if (key := f"{kind}truncated_bound") in own]
        sound = [nats.shape == ranks.shape + tokens.shape, full.shape == tokens.shape]
        sound += [bound.shape == ranks.shape for bound in bounds]
        sound += [ranks.ndim == tokens.ndim == 1, nats.size > 0, bool((ranks > 0).all() and (tokens > 0).all())]
        if not all(sound):
            raise LmsatError(
                f"the arrays of lmsat_rank_head do not belong together (ranks {ranks.tolist()}, "
                f"losses of shape {nats.shape}, {tokens.size} documents): run it again"
            )
        kept = np.argsort(ranks)
        kept = kept[np.isfinite(nats[kept]).all(1)]
        if not len(kept) or not np.isfinite(full).all():
            raise LmsatError("the losses of lmsat_rank_head are not finite: leave the checkpoint out")
        return cls(
            name=name,
            ranks_K=ranks[kept],
            nats_KM=nats[kept],
            tokens_M=tokens,
            full_nats_M=full,
            bound_K=np.min(bounds, 0)[kept] if bounds else None,
        )

    @property
    def losses_K(self) -> np.ndarray:
        """Nats per token at each rank."""
        return self.nats_KM.sum(1) / self.tokens_M.sum()

    @property
    def full_loss(self) -> float:
        """Nats per token with the model's own head."""
        return float(self.full_nats_M.sum() / self.tokens_M.sum())

    @property
    def gaps_K(self) -> np.ndarray:
        """Nats per token above the full loss."""
        return (self.nats_KM - self.full_nats_M).sum(1) / self.tokens_M.sum()

    @property
    def gap_stderrs_K(self) -> np.ndarray:
        """Standard errors of the gaps, paired by document (`ratio_stderr`); NaN for a single document."""
        return ratio_stderr(self.nats_KM - self.full_nats_M, self.tokens_M)


def by_rank(curve: RankCurve, singular_values: np.ndarray) -> pd.DataFrame:
    """Return the loss at each rank beside the W-error of the model's own head (Godey et al. 2024, Fig. 8).

    ``singular_values`` are those of the head, shape [S]. Columns: ``rank``, ``w_error`` (0 from rank S on), ``loss``,
    ``gap``, ``gap_stderr``, ``bound`` (nats per token; NaN where unknown).
    """
    import pandas as pd

    errors = w_error(singular_values)
    return pd.DataFrame(
        {
            "rank": curve.ranks_K,
            "w_error": errors[np.minimum(curve.ranks_K, len(errors)) - 1],
            "loss": curve.losses_K,
            "gap": curve.gaps_K,
            "gap_stderr": curve.gap_stderrs_K,
            "bound": np.full(len(curve.ranks_K), np.nan) if curve.bound_K is None else curve.bound_K,
        }
    )


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


def check_within(within: float) -> None:
    """Raise `LmsatError` for a share of the full loss that is no number, or below 0."""
    check_number("within", within, "give a share of the full loss, from 0 on", least=0, ends=True)


def rank_needed(
    curve: RankCurve, within: float = 0.01, confidence: float = CONFIDENCE, repetitions: int = 1000, seed: int = 0
) -> RankNeeded:
    """Return the rank at which the loss is (1 + within) times that of the full head, a real number.

    The loss at a rank counts as the least of the losses at this and all lower ranks, and between neighbouring ranks as
    linear in ln r. The interval is of percentiles over samples of documents drawn with replacement, each with its own
    full loss. Raises `LmsatError` for a share below 0 or a confidence that is not between 0 and 1.
    """
    check_within(within)
    check_share("confidence", confidence)
    check_simulation(repetitions, seed, usual=1000)
    sums_MX = np.column_stack([curve.tokens_M, curve.full_nats_M, curve.nats_KM.T]).astype(np.float64)
    rank = float(_crossings(curve.ranks_K, sums_MX.sum(0, keepdims=True), within)[0])
    # A rank beyond the highest one measured is infinite.
    low = high = np.inf
    if len(sums_MX) > 1:
        ranks_R = _crossings(curve.ranks_K, resampled_sums(sums_MX, repetitions, seed), within)
        low, high = interval(ranks_R, confidence=confidence) or (low, high)
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

"""The softmax bottleneck in numbers: the rank that an LM head needs, and the dimensions that a corpus asks for.

Shapes: K ranks, M documents, S singular values, R repetitions of the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

_BY_DOCUMENT = {
    "trained": "trained_by_document",
    "weighted": "weighted_truncated_by_document",
    "truncated": "truncated_by_document",
}
CURVES = tuple(_BY_DOCUMENT)
"""Heads trained at their rank; the head truncated in the metric of its states; the head truncated as it is."""
_COUNTS_AT_ONCE = 10_000_000


@dataclass(frozen=True, eq=False)
class RankCurve:
    """Losses of one model with LM heads of K ranks, on the same M documents (Godey et al. 2024, Sec. 5.1, Fig. 6)."""

    name: str
    """One of `CURVES`."""
    ranks_K: np.ndarray
    """Rising, int64."""
    nats_KM: np.ndarray
    """−Σ ln p over a document's tokens, with the head of each rank."""
    tokens_M: np.ndarray
    full_nats_M: np.ndarray
    """As ``nats_KM``, with the model's own head."""
    bound_K: np.ndarray | None = None
    """Upper bound of the gap of the best head of each rank, in nats per token; None where there is none."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str | None = None) -> RankCurve:
        """Return a curve from the arrays of ``lmsat_rank_head``; by default the first of `CURVES` that is there.

        The bound of a truncated head's gap bounds that of the best head of its rank, too: beside trained heads
        stands the smaller of the two. Ranks whose heads diverged in training are left out.

        Raises:
            LmsatError: For arrays that are not there, do not belong together, or have no finite loss.
        """
        own = {key.removeprefix("rank_head/"): value for key, value in arrays.items()}
        if name is None:
            name = next((curve for curve in CURVES if _BY_DOCUMENT[curve] in own), "truncated")
        if name not in _BY_DOCUMENT:
            raise LmsatError(f"'{name}' is no curve of lmsat_rank_head: give one of {', '.join(CURVES)}")
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
        sound += [
            ranks.ndim == tokens.ndim == 1,
            nats.size > 0,
            bool((ranks > 0).all() and (tokens > 0).all()),
        ]
        if not all(sound):
            raise LmsatError(
                f"the arrays of lmsat_rank_head do not belong together (ranks {ranks.tolist()}, "
                f"losses of shape {nats.shape}, {tokens.size} documents): run it again"
            )
        kept = np.argsort(ranks)
        kept = kept[np.isfinite(nats[kept]).all(1)]
        if not len(kept) or not np.isfinite(full).all():
            raise LmsatError("the losses of lmsat_rank_head are not finite: leave the checkpoint out")
        return cls(name, ranks[kept], nats[kept], tokens, full, np.min(bounds, 0)[kept] if bounds else None)

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
        """Standard errors of the gaps, with documents as the unit that is drawn; NaN for one document.

        Both heads read the same documents: √(M/(M−1) Σ (Δ_m − gap · t_m)²) / Σ t_m, Δ_m the difference of a
        document's two sums and t_m its tokens.
        """
        documents = len(self.tokens_M)
        if documents < 2:
            return np.full(len(self.ranks_K), np.nan)
        residuals_KM = self.nats_KM - self.full_nats_M - self.gaps_K[:, None] * self.tokens_M
        variances_K = documents / (documents - 1) * (residuals_KM**2).sum(1)
        return np.sqrt(variances_K) / self.tokens_M.sum()


def w_error(singular_values: np.ndarray) -> np.ndarray:
    """Return W-error(d) = √(Σ_{i>d} s² / Σ s²) for d = 1 ... S, float64, from singular values of any order.

    The relative Frobenius error of the best approximation of rank d (Godey et al. 2024, Sec. 5.1), summed from
    the small end. Raises `LmsatError` unless some value is positive and all are finite.
    """
    s = np.sort(np.asarray(singular_values, dtype=np.float64))
    if not np.isfinite(s).all() or not s.any():
        raise LmsatError(
            "singular values that are not finite, or all zero, have no W-error: measure them again"
        )
    sums = np.cumsum((s / s[-1]) ** 2)
    return np.sqrt(np.append(sums[-2::-1], 0.0) / sums[-1])


def by_rank(curve: RankCurve, singular_values: np.ndarray) -> pd.DataFrame:
    """Return the loss at each rank beside the W-error of the model's own head (Godey et al. 2024, Fig. 8).

    ``singular_values`` are the head's, shape [S]. Columns: ``rank``, ``w_error`` (0 from rank S on), ``loss``,
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
    """The rank at which the loss is within so much of the full one, with the interval that holds it."""

    within: float
    rank: float | None
    """None if no measured rank gets there."""
    low: float | None
    high: float | None
    """None where the interval's end lies beyond the highest rank measured, and both for a single document."""
    confidence: float
    at_most: bool
    """Whether the lowest rank measured is there already, so that less may do."""

    @property
    def reached(self) -> bool:
        """Whether a measured rank gets there."""
        return self.rank is not None


def rank_needed(
    curve: RankCurve,
    within: float = 0.01,
    confidence: float = 0.9,
    repetitions: int = 1000,
    seed: int = 0,
) -> RankNeeded:
    """Return the rank at which the loss is (1 + within) times the full one, a real number.

    The loss is taken as linear in ln r between neighbouring ranks, after each is given the least loss of it and
    all lower ones. The interval is of percentiles over samples of documents drawn with replacement, each with its
    own full loss.

    Raises `LmsatError` for a share below 0 or a confidence that is not between 0 and 1.
    """
    if not 0 <= within < np.inf or not 0 < confidence < 1:
        raise LmsatError(
            f"within={within:g} with confidence={confidence:g} is no question: "
            "give a share of the full loss from 0 on, and a confidence between 0 and 1"
        )
    sums_MX = np.column_stack([curve.tokens_M, curve.full_nats_M, curve.nats_KM.T]).astype(np.float64)
    rank = float(_crossings(curve.ranks_K, sums_MX.sum(0, keepdims=True), within)[0])
    low = high = np.inf
    if len(sums_MX) > 1:
        sums_RX = np.concatenate(
            [counts_RM @ sums_MX for counts_RM in _resamples(len(sums_MX), repetitions, seed)]
        )
        tail = (1 - confidence) / 2
        # Ranks that are not reached are infinite: no mean of neighbours.
        low, high = np.quantile(
            _crossings(curve.ranks_K, sums_RX, within), [tail, 1 - tail], method="inverted_cdf"
        )
    return RankNeeded(
        within, _known(rank), _known(low), _known(high), confidence, at_most=rank == curve.ranks_K[0]
    )


def _resamples(documents: int, repetitions: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each document is drawn, shapes [some of the repetitions, M]."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // documents)
    for start in range(0, repetitions, at_once):
        size = min(at_once, repetitions - start)
        yield rng.multinomial(documents, np.full(documents, 1 / documents), size=size)


def _crossings(ranks_K: np.ndarray, sums_RX: np.ndarray, within: float) -> np.ndarray:
    """Return the rank needed in each row of sums (tokens, full nats, nats at each rank); infinite if none is enough."""
    losses_RK = np.minimum.accumulate(sums_RX[:, 2:] / sums_RX[:, :1], axis=1)
    targets_R = (1 + within) * sums_RX[:, 1] / sums_RX[:, 0]
    enough_RK = losses_RK <= targets_R[:, None]
    after_R = np.where(enough_RK.any(1), enough_RK.argmax(1), len(ranks_K))
    found_R = np.full(len(sums_RX), np.inf)
    found_R[after_R == 0] = ranks_K[0]
    between = np.flatnonzero((after_R > 0) & (after_R < len(ranks_K)))
    after = after_R[between]
    above, below = losses_RK[between, after - 1], losses_RK[between, after]
    share = (above - targets_R[between]) / (above - below)
    logarithms = np.log(ranks_K)
    found_R[between] = np.exp((1 - share) * logarithms[after - 1] + share * logarithms[after])
    return found_R


def _known(rank: float) -> float | None:
    return float(rank) if np.isfinite(rank) else None


@dataclass(frozen=True)
class Capacity:
    """A model's width beside the dimensions that a corpus' n-gram model asks for."""

    dimension: int | None
    """The least at which the W-error is negligible; None if the known part of the curve does not get there."""
    w_error_at_hidden_size: float | None
    """None beyond the known part of the curve."""
    ratio: float | None
    """``dimension`` over the hidden size."""


def capacity(w_error_of_corpus: np.ndarray, hidden_size: int, negligible: float = 0.01) -> Capacity:
    """Compare a model's width with the W-error of a corpus' n-gram model (Godey et al. 2024, Sec. 5.1, Fig. 7).

    ``w_error_of_corpus`` has the W-error of dimension d in entry d − 1, and may end before it is 0.
    """
    enough = np.flatnonzero(w_error_of_corpus <= negligible)
    dimension = int(enough[0]) + 1 if len(enough) else None
    # Whoever has all dimensions has no error beyond them.
    complete = len(w_error_of_corpus) > 0 and w_error_of_corpus[-1] == 0
    known = float(w_error_of_corpus[hidden_size - 1]) if hidden_size <= len(w_error_of_corpus) else None
    return Capacity(
        dimension,
        0.0 if known is None and complete else known,
        None if dimension is None else dimension / hidden_size,
    )

"""The losses of a model with LM heads of several ranks, from the arrays of lmsat_rank_head.

Shapes: K ranks, M documents, S singular values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.rank_needed.dimension import w_error
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

"""The best approximations of an LM head, of all ranks at once, and their losses.

Shapes: N tokens, D width, V rows of the head, R rank, K ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lmsat_plugin.model.cross_entropy import TokenScores, tile_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.model.lm_head import Head

# Directions of less than this share of the mean variance count as having it: the metric stays invertible, so that
# the approximation of full rank is the head itself also for states unlike those the metric is made of.
_FLOOR = 1e-4


@dataclass(frozen=True)
class Truncation:
    """W_R = W E[:, :R] F[:R], the best approximation of W of each rank R, in the metric of a second moment.

    It minimises E‖(W − W_R) h‖² over the states h whose second moment is the metric, and ‖W − W_R‖_F where there
    is none (Eckart and Young; Godey et al. 2024, Lemma 5.2). All in float64.
    """

    expand_DD: torch.Tensor
    """E: W E[:, :R] is the left factor, of shape [V, R]."""
    reduce_DD: torch.Tensor
    """F = E⁻¹: its first R rows are the right factor."""
    singular_D: torch.Tensor
    """Singular values of W, or of W M^½ in the metric M: Σ of their squares beyond R is the error of W_R, squared."""

    @classmethod
    def of(cls, triangle_KD: torch.Tensor, moment_DD: torch.Tensor | None = None) -> Truncation:
        """Decompose a head whose weight has this `triangle`, in the metric of ``moment_DD`` = E[h hᵀ] if given."""
        if moment_DD is None:
            _, singular, vectors_DD = torch.linalg.svd(triangle_KD)
            return cls(vectors_DD.T, vectors_DD, _padded(singular, len(vectors_DD)))
        variance_D, axes_DD = torch.linalg.eigh(moment_DD.to(triangle_KD))
        root_D = variance_D.clamp_min(_FLOOR * variance_D.mean()).sqrt()
        _, singular, vectors_DD = torch.linalg.svd(triangle_KD @ (axes_DD * root_D))
        return cls(
            (axes_DD * root_D) @ vectors_DD.T,
            vectors_DD @ (axes_DD / root_D).T,
            _padded(singular, len(vectors_DD)),
        )

    def weight(self, weight_VD: torch.Tensor, rank: int) -> torch.Tensor:
        """Return W_R in the type of ``weight_VD``, computed in float64, some rows at a time."""
        projector_DD = self.expand_DD[:, :rank] @ self.reduce_DD[:rank]
        rows = (rows_VD.to(projector_DD) @ projector_DD for rows_VD in weight_VD.split(8192))
        return torch.cat([low_VD.to(weight_VD) for low_VD in rows])

    def expanded(self, weight_VD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return W E, whose first R columns are the left factor of rank R, shape [V, D]."""
        rows = (rows_VD.to(self.expand_DD) @ self.expand_DD for rows_VD in weight_VD.split(8192))
        return torch.cat([rows_VD.to(weight_VD.device, dtype) for rows_VD in rows])

    def error(self, triangle_KD: torch.Tensor, moment_DD: torch.Tensor, ranks: Sequence[int]) -> torch.Tensor:
        """Return √E‖(W − W_R) h‖² for each rank, over states of any second moment, shape [K].

        As far as the loss is a function of the logits it changes by at most √2 times their distance: the gradient
        of −log softmax is p − e, of norm √2 at most. So √2 times this bounds the mean change of the loss
        (Godey et al. 2024, Theorem 5.3, with its constant, in the metric of the states).
        """
        factor_KD = triangle_KD @ self.expand_DD
        moment_DD = self.reduce_DD @ moment_DD.to(self.reduce_DD) @ self.reduce_DD.T
        errors = [
            ((factor_KD[:, r:].T @ factor_KD[:, r:]) * moment_DD[r:, r:]).sum().clamp_min(0).sqrt()
            for r in ranks
        ]
        return torch.stack(errors)


def _padded(singular: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(singular, (0, length - len(singular)))


def nested_losses(
    hidden_ND: torch.Tensor,
    targets_N: torch.Tensor,
    truncation: Truncation,
    expanded_VD: torch.Tensor,
    ranks: Sequence[int],
    head: Head,
) -> torch.Tensor:
    """Return the losses of the truncated heads of rising ``ranks``, nats, float64, shape [K, N].

    ``expanded_VD`` is `Truncation.expanded`. The logits of a rank are those of the one before and what the
    columns between add: all ranks together take the products of the largest.
    """
    device = expanded_VD.device
    reduce_DD = truncation.reduce_DD.to(device, expanded_VD.dtype)
    targets_N = targets_N.to(device)
    rows, columns = tile_shape(device)
    losses = []
    for first in range(0, len(targets_N), rows):
        reduced = hidden_ND[first : first + rows].to(device, expanded_VD.dtype) @ reduce_DD.T
        scores = [TokenScores(targets_N[first : first + rows]) for _ in ranks]
        for start in range(0, len(expanded_VD), columns):
            tile_VD = expanded_VD[start : start + columns]
            bias = None if head.bias_V is None else head.bias_V[start : start + columns]
            logits_NV = reduced.new_zeros(len(reduced), len(tile_VD))
            done = 0
            for rank, found in zip(ranks, scores, strict=True):
                logits_NV.addmm_(reduced[:, done:rank], tile_VD[:, done:rank].T)
                found.add(head.finish(logits_NV.clone(), bias), start)
                done = rank
        losses.append(torch.stack([found.losses_N for found in scores]))
    return torch.cat(losses, 1)

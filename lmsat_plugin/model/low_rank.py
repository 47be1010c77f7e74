"""Truncated LM heads: the best approximations of each rank, and the losses of several ranks at once.

Shapes: N tokens, D width, V rows of the head, R rank, K ranks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.cross_entropy import TokenScores, tile_shape
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.spectrum import decompose, multiply_rows

# Directions with a smaller share of the mean variance count as having this share. The metric stays invertible, so that
# the approximation of full rank is the head itself, also for states unlike those of the metric.
_FLOOR = 1e-4


@dataclass(frozen=True)
class Truncation:
    """W_R = W E[:, :R] F[:R], the best approximation of W of each rank R, in the metric of a second moment.

    It minimises E‖(W − W_R) h‖² over the states h whose second moment is the metric, and ‖W − W_R‖_F without a
    metric (Eckart and Young; Godey et al. 2024, Lemma 5.2). All in float64.
    """

    expand_DD: torch.Tensor
    """E: W E[:, :R] is the left factor, of shape [V, R]."""
    reduce_DD: torch.Tensor
    """F = E⁻¹: its first R rows are the right factor."""
    singular_D: torch.Tensor
    """Singular values of W, or of W M^½ in the metric M: Σ of their squares beyond R is the error of W_R, squared."""
    weighted: bool = False
    """Whether it is in a metric."""

    @classmethod
    def of(cls, head: Head, moment_DD: torch.Tensor | None = None) -> Truncation:
        """Decompose a head, in the metric of ``moment_DD`` = E[h hᵀ] if given.

        Raises `DivergedError` where one of them is not finite.
        """
        if moment_DD is None:
            singular, vectors_DD = head.decomposition
            expand_DD, reduce_DD = vectors_DD.T, vectors_DD
        else:
            if not torch.isfinite(moment_DD).all():
                raise DivergedError("the hidden states of the last layer are not finite")
            variance_D, axes_DD = torch.linalg.eigh(moment_DD.to(head.triangle_KD))
            root_D = variance_D.clamp_min(_FLOOR * variance_D.mean()).sqrt()
            singular, vectors_DD = decompose(head.triangle_KD @ (axes_DD * root_D))
            expand_DD, reduce_DD = (axes_DD * root_D) @ vectors_DD.T, vectors_DD @ (axes_DD / root_D).T
        padding = (0, len(vectors_DD) - len(singular))
        singular_D = torch.nn.functional.pad(singular, padding)
        return cls(expand_DD=expand_DD, reduce_DD=reduce_DD, singular_D=singular_D, weighted=moment_DD is not None)

    def weight(self, weight_VD: torch.Tensor, rank: int) -> torch.Tensor:
        """Return W_R in the type of ``weight_VD``, computed in float64, some rows at a time."""
        return multiply_rows(weight_VD, self.expand_DD[:, :rank] @ self.reduce_DD[:rank], weight_VD.dtype)

    def error(self, triangle_KD: torch.Tensor, moment_DD: torch.Tensor, ranks: Sequence[int]) -> torch.Tensor:
        """Return √E‖(W − W_R) h‖² for each rank, over states of any second moment, shape [K].

        The gradient of −log softmax by the logits is p − e, whose norm is at most √2. So √2 times this bounds the mean
        change of the loss (Godey et al. 2024, Theorem 5.3, with its constant, in the metric of the states).
        """
        factor_KD = triangle_KD @ self.expand_DD
        moment_DD = self.reduce_DD @ moment_DD.to(self.reduce_DD) @ self.reduce_DD.T
        errors = [
            ((factor_KD[:, r:].T @ factor_KD[:, r:]) * moment_DD[r:, r:]).sum().clamp_min(0).sqrt() for r in ranks
        ]
        return torch.stack(errors)


@dataclass(frozen=True, kw_only=True)
class NestedHeads:
    """The truncated heads of several ranks: the factors of each begin with those of the rank before."""

    head: Head
    """The model's own head."""
    truncation: Truncation
    ranks: Sequence[int]
    """Rising, K of them."""

    @functools.cached_property
    def expanded_VD(self) -> torch.Tensor:
        """W E, whose first R columns are the left factor of rank R, in the type of the logits."""
        if not self.truncation.weighted:
            return self.head.rotated_VD
        return multiply_rows(self.head.weight_VD, self.truncation.expand_DD, self.head.dtype)

    def factors(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors of W_R, of shapes [V, R] and [R, D]."""
        return self.expanded_VD[:, :rank], self.truncation.reduce_DD[:rank]

    def losses(self, hidden_ND: torch.Tensor, targets_N: torch.Tensor, own_N: torch.Tensor) -> torch.Tensor:
        """Return the losses of all ranks, nats, float64, shape [K, N]; ``own_N`` are those of the head itself.

        The logits of a rank are those of the rank before, plus the products with the columns in between: all ranks
        together cost the products of the largest. At full rank the head is itself, and nothing is computed.
        """
        device, dtype = self.head.weight_VD.device, self.head.dtype
        reduce_DD = self.truncation.reduce_DD.to(device, dtype)
        targets_N = targets_N.to(device)
        rows, columns = tile_shape(device)
        lower = [rank for rank in self.ranks if rank < len(reduce_DD)]
        losses_KN = own_N.repeat(len(self.ranks), 1)
        for first in range(0, len(targets_N) if lower else 0, rows):
            here = slice(first, first + rows)
            reduced = hidden_ND[here].to(device, dtype) @ reduce_DD.T
            scores = [TokenScores(targets_N[here]) for _ in lower]
            for start in range(0, len(self.expanded_VD), columns):
                tile = slice(start, start + columns)
                tile_VD = self.expanded_VD[tile]
                logits_NV = reduced.new_zeros(len(reduced), len(tile_VD))
                work_NV = torch.empty_like(logits_NV)
                done = 0
                for rank, of_rank in zip(lower, scores, strict=True):
                    logits_NV.addmm_(reduced[:, done:rank], tile_VD[:, done:rank].T)
                    of_rank.add(self.head.finish(logits_NV, tile, work_NV), start, work_NV)
                    done = rank
            losses_KN[: len(lower), here] = torch.stack([of_rank.losses_N for of_rank in scores])
        return losses_KN

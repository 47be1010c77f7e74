"""How alike the states and the predictions of two models are on the same tokens.

Shapes: N tokens, D and E widths of the two models, V tokens of the vocabulary, K directions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lmsat_plugin.lazy import torch
from lmsat_plugin.model.spectrum import in_float64

DIRECTIONS = 10
_CHUNK = 64


@dataclass(frozen=True)
class Alignment:
    """How alike the states of one layer are."""

    cka: float
    """Linear centred kernel alignment, debiased; NaN where all states of a model are the same."""
    principal_angle: float
    """Mean of the principal angles between the top subspaces, degrees; NaN as `cka`."""


def align(x_ND: torch.Tensor, y_NE: torch.Tensor) -> Alignment:
    """Compare the states that two models have of the same tokens, in float64.

    ``cka`` is HSIC(X, Y)/√(HSIC(X, X) HSIC(Y, Y)) with the unbiased estimator of Song et al. 2012 for the linear kernel
    (Kornblith et al. 2019, 1905.00414; Nguyen et al. 2021, 2010.15327): 1 for states that differ by a rotation and a
    scale, about 0 for independent ones, and slightly negative by chance. ``principal_angle`` is the mean of the angles
    between the spans of the ten first left singular vectors of the centred X and Y: 0 for the same subspace of
    directions over tokens, 90 for orthogonal ones. Both need four tokens or more.
    """
    x_ND, y_NE = (in_float64(states) for states in (x_ND, y_NE))
    x_ND, y_NE = x_ND - x_ND.mean(0), y_NE - y_NE.mean(0)
    cross_DE, own_DD, own_EE = x_ND.T @ y_NE, x_ND.T @ x_ND, y_NE.T @ y_NE
    both = _hsic(x_ND, y_NE, cross_DE)
    scale = _hsic(x_ND, x_ND, own_DD) * _hsic(y_NE, y_NE, own_EE)
    return Alignment(
        cka=both / math.sqrt(scale) if scale > 0 else math.nan, principal_angle=_angle(own_DD, own_EE, cross_DE)
    )


def _hsic(x_ND: torch.Tensor, y_NE: torch.Tensor, cross_DE: torch.Tensor) -> float:
    """Return the unbiased estimate of HSIC of X and Y for the linear kernel, by XᵀY instead of kernel matrices.

    It is [tr(KL) + 1ᵀK1 · 1ᵀL1/((N − 1)(N − 2)) − 2/(N − 2) · 1ᵀKL1]/(N (N − 3)), K = XXᵀ and L = YYᵀ with the
    diagonals set to 0.
    """
    n = len(x_ND)
    # Of centred states all rows of a kernel matrix add up to 0, but for the diagonal that is taken out.
    k_N, l_N = x_ND.square().sum(1), y_NE.square().sum(1)
    products = float(k_N @ l_N)
    trace = float(cross_DE.square().sum()) - products
    return (trace + float(k_N.sum() * l_N.sum()) / ((n - 1) * (n - 2)) - 2 / (n - 2) * products) / (n * (n - 3))


def _angle(own_DD: torch.Tensor, own_EE: torch.Tensor, cross_DE: torch.Tensor) -> float:
    """Return the mean principal angle, degrees, of XᵀX, YᵀY and XᵀY."""
    (values_D, vectors_DD), (values_E, vectors_EE) = (torch.linalg.eigh(own) for own in (own_DD, own_EE))
    k = min(DIRECTIONS, _rank(values_D), _rank(values_E))
    if not k:
        return math.nan
    left_DK, right_EK = vectors_DD[:, -k:] / values_D[-k:].sqrt(), vectors_EE[:, -k:] / values_E[-k:].sqrt()
    cosines_K = torch.linalg.svdvals(left_DK.T @ cross_DE @ right_EK).clamp(max=1.0)
    return float(cosines_K.arccos().mean()) * 180 / math.pi


def _rank(eigenvalues: torch.Tensor) -> int:
    """Return how many rising eigenvalues are not rounding alone."""
    least = float(eigenvalues[-1]) * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    return int((eigenvalues > max(least, 0.0)).sum())


def jensen_shannon(p_NV: torch.Tensor, q_NV: torch.Tensor) -> float:
    """Return the mean over tokens of the Jensen-Shannon distance of two predictions, given as log probabilities.

    The distance is the root of the divergence in bits: 0 for equal predictions, 1 for ones without a common token.
    """
    total = 0.0
    for p, q in _chunks(p_NV, q_NV):
        mean = torch.logaddexp(p, q) - math.log(2)
        nats_N = torch.stack([(each.exp() * (each - mean).nan_to_num(0.0)).sum(-1) for each in (p, q)]).mean(0)
        total += float((nats_N / math.log(2)).clamp(0, 1).sqrt().sum())
    return total / len(p_NV)


def _chunks(p_NV: torch.Tensor, q_NV: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for p, q in zip(p_NV.split(_CHUNK), q_NV.split(_CHUNK), strict=True):
        yield in_float64(p), in_float64(q)

"""How far, and in how many directions, a weight matrix has changed from another.

Shapes: O outputs, I inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmsat_plugin.lazy import torch
from lmsat_plugin.model.spectrum import effective_rank, in_float64, singular_values

SAMPLE = 65_536
"""Entries of a matrix, at most, of which the cosine of two changes is taken."""


@dataclass(frozen=True)
class MatrixChange:
    """What the change ΔW = W − R of a weight matrix from a reference R is like."""

    relative_change: float
    """‖ΔW‖/‖R‖ in the Frobenius norm; NaN where R is all zero."""
    change_stable_rank: float
    """‖ΔW‖²/‖ΔW‖₂²; NaN without a change."""
    change_effective_rank: float
    """exp H(s/Σs), s the singular values of ΔW (Roy and Vetterli 2007); NaN without a change."""


def matrix_change(weight_OI: torch.Tensor, reference_OI: torch.Tensor) -> MatrixChange:
    """Return what the change of a matrix is like. All numbers are NaN where an entry of it is not finite."""
    before_OI = in_float64(reference_OI)
    change_OI = in_float64(weight_OI) - before_OI
    size, norm = float(change_OI.norm()), float(before_OI.norm())
    relative = size / norm if norm else math.nan
    if not math.isfinite(size) or not size:
        return MatrixChange(relative, math.nan, math.nan)
    s = singular_values(change_OI.T if weight_OI.shape[0] < weight_OI.shape[1] else change_OI)
    return MatrixChange(relative, float((s**2).sum() / s[0] ** 2), effective_rank(s))


def sample_of(weight_OI: torch.Tensor) -> torch.Tensor:
    """Return at most 65,536 entries of a matrix, evenly spread, always the same ones, in its own type."""
    entries = weight_OI.detach().reshape(-1)
    step = -(-len(entries) // SAMPLE)
    # One that divides the width would meet a few columns alone.
    while step > 1 and math.gcd(step, weight_OI.shape[-1]) > 1:
        step += 1
    return entries[::step].clone()


def cosine(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    """Return the cosine between two vectors, each given in parts; NaN where one is all zero."""
    pairs = [(in_float64(a), in_float64(b)) for a, b in zip(first, second, strict=True)]
    product = sum(float(a @ b) for a, b in pairs)
    sizes = [math.sqrt(sum(float(pair[i] @ pair[i]) for pair in pairs)) for i in (0, 1)]
    return product / (sizes[0] * sizes[1]) if all(sizes) else math.nan

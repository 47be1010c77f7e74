"""Singular values of tall matrices, and their entropy and effective rank.

Shapes: V rows, D columns, K = min(V, D) singular values.
"""

from __future__ import annotations

import numpy as np
import torch


def triangle(matrix_VD: torch.Tensor, block: int = 8192) -> torch.Tensor:
    """Return R of a QR decomposition in float64, shape [K, D], a block of rows at a time.

    R has the matrix' singular values and right singular vectors, to the accuracy of LAPACK. A Gram matrix would square
    the condition number. Only one block is held in float64 at a time.
    """
    device = torch.device("cpu") if matrix_VD.device.type == "mps" else matrix_VD.device
    block = max(block, 4 * matrix_VD.shape[1])
    r: torch.Tensor | None = None
    for rows in matrix_VD.split(block):
        rows = rows.to(device, torch.float64)
        r = torch.linalg.qr(rows if r is None else torch.cat([r, rows]), mode="r").R
    assert r is not None
    return r


def singular_values(matrix_VD: torch.Tensor) -> np.ndarray:
    """Return the singular values of a tall matrix, float64, falling, shape [K]."""
    return torch.linalg.svdvals(triangle(matrix_VD)).cpu().numpy()


def entropy(weights: np.ndarray) -> float:
    """Return H(p) = −Σ p ln p in nats, p the weights over their sum; 0 ln 0 is 0."""
    p = weights / weights.sum()
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def divergence_from_uniform(weights: np.ndarray) -> float:
    """Return KL(p‖u) = ln K − H(p) in nats, p the K weights over their sum, u uniform."""
    return float(np.log(len(weights)) - entropy(weights))


def effective_rank(singular: np.ndarray) -> float:
    """Return exp H(s/Σs) (Roy and Vetterli 2007): between 1 and K, and 0 for a matrix of zeros."""
    if not singular.any():
        return 0.0
    return float(np.exp(entropy(singular)))

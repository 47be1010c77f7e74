"""Tall matrices, a block of rows at a time: products, singular values, and these values' entropy and effective rank.

Shapes: V rows, D columns, K = min(V, D) singular values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from lmsat_plugin.lazy import torch

_ROWS = 8192


def device_of_float64(device: torch.device) -> torch.device:
    """Return a device, or the CPU for Apple's GPUs, which have no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def in_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float64, on its device where that has it."""
    return tensor.to(device_of_float64(tensor.device)).to(torch.float64)


def multiply_rows(matrix_VD: torch.Tensor, factor_DX: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the product of two matrices, computed in the type of the second, shape [V, X]."""
    blocks = (rows.to(factor_DX) @ factor_DX for rows in matrix_VD.split(_ROWS))
    return torch.cat([block.to(matrix_VD.device, dtype) for block in blocks])


def triangle(matrix_VD: torch.Tensor, block: int = _ROWS) -> torch.Tensor:
    """Return R of a QR decomposition in float64, shape [K, D]; only one block is held in float64 at a time.

    R has the matrix' singular values and right singular vectors, to the accuracy of LAPACK. A Gram matrix would square
    the condition number.
    """
    r = in_float64(matrix_VD[:0])
    for rows in matrix_VD.split(max(block, 4 * matrix_VD.shape[1])):
        r = torch.linalg.qr(torch.cat([r, in_float64(rows)]), mode="r").R
    return r


def singular_values(matrix_VD: torch.Tensor) -> np.ndarray:
    """Return the singular values of a matrix, float64, falling, shape [K]; of a tall one, those of its triangle."""
    is_tall = len(matrix_VD) > matrix_VD.shape[1]
    triangle_KD = triangle(matrix_VD) if is_tall else in_float64(matrix_VD)
    with _own_cores(triangle_KD.device):
        return torch.linalg.svdvals(triangle_KD.cpu()).numpy()


def decompose(triangle_KD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the singular values [K], falling, and the right singular vectors [D, D] of a matrix, on its device.

    A matrix on a GPU is decomposed on the CPU, by LAPACK: an SVD is many small steps one after another, which keep a
    GPU waiting, and many GPUs do float64 at a 64th of the rate (benchmarks/gpu.py times both places).
    """
    with _own_cores(triangle_KD.device):
        _, singular_K, vectors_DD = torch.linalg.svd(triangle_KD.cpu())
    return singular_K.to(triangle_KD.device), vectors_DD.to(triangle_KD.device)


@contextmanager
def _own_cores(device: torch.device) -> Iterator[None]:
    """Let a process on a GPU compute with its share of the cores, where torchrun has left it a single thread."""
    threads = torch.get_num_threads()
    if device.type != "cuda" or threads > 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def covariance_eigenvalues(second_moment_DD: torch.Tensor, mean_D: torch.Tensor) -> np.ndarray:
    """Return the eigenvalues of M − m mᵀ, M = E[h hᵀ] and m = E[h] in float64, falling, shape [D].

    Of a direction without variance, as after a norm without bias, only the rounding of M is left: it has 0.
    """
    covariance_DD = second_moment_DD - torch.outer(mean_D, mean_D)
    eigenvalues_D = torch.linalg.eigvalsh(covariance_DD).cpu().flip(0).numpy()
    rounding = len(mean_D) * np.finfo(float).eps * float(second_moment_DD.trace())
    return np.where(eigenvalues_D > rounding, eigenvalues_D, 0.0)


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
    return float(np.exp(entropy(singular))) if singular.any() else 0.0

"""How much the loss depends on a model's shape, width over depth, at a fixed number of parameters.

Shapes: M models, R repetitions of the bootstrap, K = 4 coefficients.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_share, check_simulation
from lmsat_plugin.analysis.input_tables import check_models, numbers
from lmsat_plugin.analysis.losses import check_nats, without_diverged
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, Estimate, interval, resample
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import pandas as pd

FEWEST_MODELS = 8
"""Twice the number of coefficients: then the 90 % intervals cover the truth in 93 to 96 % of simulations."""


@dataclass(frozen=True)
class SameSize:
    """Models with nearly the same number of parameters."""

    models: tuple[str, ...]
    n_params: float
    """The geometric mean."""
    aspect_span: float
    """The largest aspect ratio over the least."""
    loss_spread: float
    """(greatest − least) / least loss."""
    loss_spread_at_n: float
    """The same of losses that the regression's power law in N has brought to one size."""


@dataclass(frozen=True, eq=False)
class ShapeDependence:
    """ln L = c − α_N ln N + s x + q x², x = ln(aspect ratio / its geometric mean) (cf. Kaplan et al. 2020, Fig. 5)."""

    groups: tuple[SameSize, ...]
    level: float
    """c."""
    alpha_n: Estimate
    slope: Estimate
    """s: how much the loss rises, as a share, if the aspect ratio is e times as large, at the mean ratio."""
    curvature: Estimate
    """q."""
    aspect_mean: float
    best_aspect: float | None
    """The ratio with the least loss by the regression; None without a minimum within the measured ratios."""
    shape_spread: float
    """Greatest over least e^(s x + q x²) within the measured ratios, minus 1: what the shape costs at one size."""
    residual: float
    """Root mean square of ln L about the regression, by the M − K degrees of freedom."""
    confidence: float
    table: pd.DataFrame
    """The models: ``model, n, aspect, loss, group``; ``group`` is −1 for one without others of its size."""

    def cost(self, aspect: np.ndarray) -> np.ndarray:
        """Return s x + q x² for aspect ratios."""
        x = np.log(aspect / self.aspect_mean)
        assert self.slope.value is not None
        assert self.curvature.value is not None
        return self.slope.value * x + self.curvature.value * x**2

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        names = (name for name in self.__dataclass_fields__ if name != "table")
        return {name: _plain(getattr(self, name)) for name in names}


def shape_dependence(
    table: pd.DataFrame, within: float = 0.1, confidence: float = CONFIDENCE, repetitions: int = 2000, seed: int = 0
) -> ShapeDependence:
    """Return how the loss depends on the aspect ratio, width over depth, at a fixed size.

    The regression is by least squares; intervals are of percentiles over samples of models drawn with replacement.

    Args:
        table: ``model, loss, hidden_size, n_layers`` and ``n_params_non_embedding``, or else ``n_params``. Of several
            rows of a model the last one by ``tokens`` or ``step`` counts.
        within: Models are of one size if their parameters differ by no more than this share from the middle.
        confidence: Of the intervals.
        repetitions, seed: Of the bootstrap.

    Raises:
        LmsatError: For fewer than `FEWEST_MODELS` models, fewer than three aspect ratios, models whose sizes or
            shapes do not vary apart, and columns that are missing or hold no such numbers.
    """
    check_share("within", within)
    check_share("confidence", confidence)
    check_simulation(repetitions, seed, usual=2000)
    models = _models(table)
    n_M, aspect_M, loss_M = (models[name].to_numpy() for name in ("n", "aspect", "loss"))
    x_M = np.log(aspect_M)
    mean = float(x_M.mean())
    x_M = x_M - mean
    typical = np.exp(np.log(n_M).mean())
    design_MK = np.column_stack([np.ones_like(x_M), -np.log(n_M / typical), x_M, x_M**2])
    if np.linalg.matrix_rank(design_MK / np.abs(design_MK).max(0), tol=1e-6) < design_MK.shape[1]:
        raise LmsatError("the sizes and the shapes do not vary apart: add models of other shapes at the same size")
    found_K = np.linalg.lstsq(design_MK, np.log(loss_M), rcond=None)[0]
    residuals_M = np.log(loss_M) - design_MK @ found_K
    samples_RK = _bootstrap(design_MK, np.log(loss_M), repetitions, seed)
    level, alpha_n, slope, curvature = map(float, found_K)
    estimates = [
        Estimate(value, *(interval(samples_R, confidence=confidence) or ()))
        for value, samples_R in zip((alpha_n, slope, curvature), samples_RK.T[1:], strict=True)
    ]
    grid = np.linspace(x_M.min(), x_M.max(), 501)
    cost = slope * grid + curvature * grid**2
    least = int(cost.argmin())
    at_n_M = loss_M * (n_M / n_M.mean()) ** alpha_n
    group_M = _groups(n_M, within)
    return ShapeDependence(
        groups=tuple(_same_size(models.assign(at_n=at_n_M)[group_M == group]) for group in range(group_M.max() + 1)),
        level=float(level + alpha_n * np.log(typical)),
        alpha_n=estimates[0],
        slope=estimates[1],
        curvature=estimates[2],
        aspect_mean=math.exp(mean),
        best_aspect=None if least in (0, len(grid) - 1) else float(np.exp(mean + grid[least])),
        shape_spread=float(np.exp(cost.max() - cost.min()) - 1),
        residual=float(np.sqrt((residuals_M**2).sum() / (len(x_M) - design_MK.shape[1]))),
        confidence=confidence,
        table=models.assign(group=group_M),
    )


def _models(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each model, by size: ``model, n, aspect, loss``."""
    n = "n_params_non_embedding" if "n_params_non_embedding" in table.columns else "n_params"
    needed = (n, "loss", "hidden_size", "n_layers")
    check_models(table, ("model", *needed))
    table, _ = without_diverged(table)
    table = numbers(table, needed, positive=(n, "hidden_size", "n_layers"))
    check_nats(table)
    times = (name for name in ("tokens", "step") if name in table.columns and table[name].notna().all())
    order = next(times, None)
    if order is None and (twice := table.model.duplicated()).any():
        raise LmsatError(
            f"{table.model[twice].iloc[0]} has several rows and none says when: add a column tokens or step"
        )
    if order is not None:
        table = table.sort_values(order, kind="stable").drop_duplicates("model", keep="last")
    models = table.assign(n=table[n], aspect=table.hidden_size / table.n_layers)
    models = models[["model", "n", "aspect", "loss"]].sort_values("n", kind="stable", ignore_index=True)
    if len(models) < FEWEST_MODELS or models.aspect.nunique() < 3:
        raise LmsatError(
            f"{len(models)} models of {models.aspect.nunique()} aspect ratios do not tell shape from size: "
            f"give {FEWEST_MODELS} or more, of three or more"
        )
    return models


def _bootstrap(design_MK: np.ndarray, y_M: np.ndarray, repetitions: int, seed: int) -> np.ndarray:
    """Return the coefficients of samples of models, without samples that do not determine them, shape [R, K]."""
    counts_RM = resample(len(y_M), repetitions, seed)
    gram_RKK = np.einsum("rm,mk,ml->rkl", counts_RM, design_MK, design_MK, optimize=True)
    sound_R = np.linalg.cond(gram_RKK) < 1e4 * np.linalg.cond(design_MK.T @ design_MK)
    right_RK = counts_RM @ (design_MK * y_M[:, None])
    return np.linalg.solve(gram_RKK[sound_R], right_RK[sound_R][..., None])[..., 0]


def _groups(n_M: np.ndarray, within: float) -> np.ndarray:
    """Return the group of each size, which are rising; −1 for a size without another one close to it."""
    group_M = np.full(len(n_M), -1)
    start = group = 0
    while start < len(n_M):
        end = int(np.searchsorted(n_M, n_M[start] * (1 + within) / (1 - within), side="right"))
        if end - start > 1:
            group_M[start:end] = group
            group += 1
        start = end
    return group_M


def _same_size(rows: pd.DataFrame) -> SameSize:
    return SameSize(
        models=tuple(map(str, rows.model)),
        n_params=float(np.exp(np.log(rows.n).mean())),
        aspect_span=float(rows.aspect.max() / rows.aspect.min()),
        loss_spread=float(rows.loss.max() / rows.loss.min() - 1),
        loss_spread_at_n=float(rows["at_n"].max() / rows["at_n"].min() - 1),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return asdict(value) if isinstance(value, Estimate | SameSize) else value

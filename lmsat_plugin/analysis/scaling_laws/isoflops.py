"""The compute-optimal size from runs of equal compute: minima of parabolas (`fit_isoflops`, Approach 2).

Shapes: P points of one compute, B computes, R samples of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_simulation
from lmsat_plugin.analysis.input_tables import check_magnitudes, check_steps, is_tidy, numbers, table_of
from lmsat_plugin.analysis.losses import check_nats, check_one_tokenizer, loss_of_results, without_diverged
from lmsat_plugin.analysis.scaling_laws.fitted_law import Derived
from lmsat_plugin.analysis.scaling_laws.laws import NON_EMBEDDING, TOTAL
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, interval
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.framed import Framed
from lmsat_plugin.results.series import labelled
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

_LEAST_POINTS = 4
"""One more than a parabola has constants."""
_LEAST_COMPUTES = 3
_NEAR = 1.1
"""The ratio to the least loss up to which points make the parabola: farther ones lie on no parabola."""
_APART = 1.1
"""The ratio of two computes from which on they are two."""


@dataclass(frozen=True, kw_only=True)
class IsoFlop:
    """The runs of one compute, and the size that has the least loss among them."""

    flops: float
    n_points: int
    n_opt: float | None = None
    """None where no parabola has its minimum within the sizes."""
    low: float | None = None
    high: float | None = None
    """The 90 % interval of ``n_opt``; None where too many samples have no minimum."""
    tokens: float | None = None
    """C / (6 n_opt)."""
    loss: float | None = None
    """The least loss, that of the parabola."""
    curvature: float | None = None
    """Of the parabola, ``loss`` + ``curvature`` · ln²(N / ``n_opt``)."""
    reason: str | None = None
    """Why there is no minimum."""


@dataclass(frozen=True, kw_only=True)
class IsoFlops(Framed):
    """N_opt ∝ C^a and D_opt ∝ C^b from runs of equal compute (Hoffmann et al. 2022, Sec. 3.2)."""

    count: str
    """The column that is N."""
    a: Derived
    b: Derived
    noise: float
    """The standard deviation of the losses about the parabolas, in nats."""
    computes: tuple[IsoFlop, ...]
    warnings: tuple[str, ...]
    table: pd.DataFrame = field(repr=False, compare=False)
    """The points, by compute: ``n, loss, flops``, ``compute`` (the index in ``computes``), and whether they are
    ``near`` the least loss, so that the parabola is fitted to them."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat fit isoflop --json`` prints it."""
        return (
            {"law": "isoflop", "n": self.count, "confidence": CONFIDENCE}
            | {
                name: asdict(value) if isinstance(value, Derived) else value
                for name, value in (("a", self.a), ("b", self.b), ("noise", self.noise))
            }
            | {"computes": [asdict(one) for one in self.computes], "warnings": list(self.warnings)}
        )

    def frame_rows(self) -> Sequence[Mapping[str, Any]]:
        """Return the computes."""
        return [asdict(one) for one in self.computes]


@dataclass(frozen=True)
class _Parabola:
    """A parabola of the loss in the logarithm of the size."""

    x_P: np.ndarray
    """ln N, less its mean."""
    centre: float
    losses_P: np.ndarray
    fitted_P: np.ndarray
    solver_3P: np.ndarray
    """From losses to the constants, of x² first."""

    def minima(self, losses_RP: np.ndarray) -> np.ndarray:
        """Return ln N at the minima, shape [R]; NaN without one within the sizes."""
        square_R, slope_R, _ = self.solver_3P @ losses_RP.T
        with np.errstate(all="ignore"):
            x_R = -slope_R / (2 * square_R)
        inside_R = (square_R > 0) & (x_R >= self.x_P.min()) & (x_R <= self.x_P.max())
        return np.where(inside_R, x_R + self.centre, np.nan)


def fit_isoflops(data: Results | pd.DataFrame, *, repetitions: int = 1000, seed: int = 0) -> IsoFlops:
    """Return the exponents of the compute-optimal size and data (Hoffmann et al. 2022, Approach 2).

    For each compute a parabola of the loss in ln N is fitted by least squares to the points within a tenth of the least
    loss, and a line through the logarithms of the sizes at their minima. The bootstrap is of noise: samples are the
    parabolas with normal noise, whose variance is that of all residuals. Minima outside the sizes that were trained are
    left out.

    Args:
        data: A table with ``loss``, ``n_params`` (or ``n_params_non_embedding``), and ``flops``, else ``tokens`` of
            which C = 6ND; or results with lmsat_loss. Computes within a tenth of each other are one.
        repetitions: Samples of the bootstrap; 0 for no intervals.
        seed: Of the random numbers.

    Raises:
        LmsatError: For missing columns or numbers, fewer than three computes with a minimum, and ``repetitions`` or a
            ``seed`` out of range.
    """
    check_simulation(repetitions, seed, usual=1000)
    points, count, notes = _points(data)
    computes = [rows for _, rows in points.groupby("compute")]
    parabolas = [_parabola(rows[rows.near]) for rows in computes]
    known = [one for one in parabolas if one is not None]
    spare = sum(len(one.x_P) - 3 for one in known)
    squares = sum(float(((one.losses_P - one.fitted_P) ** 2).sum()) for one in known)
    noise = float(np.sqrt(squares / spare)) if spare else 0.0
    rng = np.random.default_rng(seed)
    minima_RB = np.full((repetitions + 1, len(computes)), np.nan)
    for b, one in enumerate(parabolas):
        if one is not None:
            sampled_RP = one.fitted_P + noise * rng.standard_normal((repetitions, len(one.x_P)))
            minima_RB[:, b] = one.minima(np.concatenate([one.losses_P[None], sampled_RP]))
    logs_B = np.array([np.log(rows.flops).mean() for rows in computes])
    there_B = np.isfinite(minima_RB[0])
    if there_B.sum() < _LEAST_COMPUTES:
        raise LmsatError(
            f"{there_B.sum()} of {len(computes)} computes have a least loss within their sizes, and exponents need "
            f"{_LEAST_COMPUTES}: give each {_LEAST_POINTS} or more sizes on both sides of the best"
        )
    a_R = _slopes(logs_B[there_B], minima_RB[:, there_B])
    described = tuple(
        _described(float(np.exp(log)), one, minima_RB[:, b])
        for b, (log, one) in enumerate(zip(logs_B, parabolas, strict=True))
    )
    far = [one for one in described if one.n_opt is None]
    warnings = [*notes, *(f"{one.flops:.3g} FLOP: {one.reason}" for one in far)]
    return IsoFlops(
        count=count,
        a=_exponent(a_R),
        b=_exponent(1 - a_R),
        noise=noise,
        computes=described,
        warnings=tuple(warnings),
        table=points,
    )


def _points(data: Results | pd.DataFrame) -> tuple[pd.DataFrame, str, list[str]]:
    """Return the points, by compute (`IsoFlops.table`), the column that is N, and sentences on what was left out."""
    table = table_of(data)
    table = labelled(loss_of_results(data)) if is_tidy(table) else table
    count = TOTAL if TOTAL in table.columns or NON_EMBEDDING not in table.columns else NON_EMBEDDING
    check_steps(table)
    check_one_tokenizer(table)
    table, notes = without_diverged(table)
    if "flops" in table.columns:
        table = numbers(table, [count, "loss", "flops"], positive=[count, "loss", "flops"])
    else:
        table = numbers(table, [count, "loss", "tokens"], positive=[count, "loss", "tokens"])
        table = table.assign(flops=6 * table[count] * table["tokens"])
    check_magnitudes(table, [count, "loss", "flops"])
    check_nats(table)
    points = table[[count, "loss", "flops"]].rename(columns={count: "n"}).sort_values("flops", kind="stable")
    next_P = np.diff(np.log(points.flops)) > np.log(_APART)
    points = points.assign(compute=np.append(0, next_P.cumsum()))
    near_P = points.loss <= _NEAR * points.groupby("compute").loss.transform("min")
    return points.assign(near=near_P), count, notes


def _parabola(points: pd.DataFrame) -> _Parabola | None:
    sizes_P, losses_P = np.log(points.n.to_numpy()), points.loss.to_numpy()
    if len(np.unique(sizes_P)) < _LEAST_POINTS:
        return None
    centre = float(sizes_P.mean())
    x_P = sizes_P - centre
    columns_P3 = np.column_stack([x_P**2, x_P, np.ones(len(x_P))])
    solver_3P = np.linalg.pinv(columns_P3)
    return _Parabola(x_P, centre, losses_P, columns_P3 @ (solver_3P @ losses_P), solver_3P=solver_3P)


def _slopes(logs_B: np.ndarray, minima_RB: np.ndarray) -> np.ndarray:
    """Return the slope of the line through the minima that each sample has, shape [R]; NaN for fewer than three."""
    there_RB = np.isfinite(minima_RB)
    counts_R = there_RB.sum(1)
    with np.errstate(all="ignore"):
        x_RB = np.where(there_RB, logs_B, 0.0)
        x_RB = np.where(there_RB, x_RB - (x_RB.sum(1) / counts_R)[:, None], 0.0)
        slopes_R = (x_RB * np.nan_to_num(minima_RB)).sum(1) / (x_RB**2).sum(1)
    return np.where(counts_R >= _LEAST_COMPUTES, slopes_R, np.nan)


def _exponent(values_R: np.ndarray) -> Derived:
    ends = interval(values_R[1:])
    reason = None if ends or len(values_R) == 1 else "in too many samples fewer than three computes have a minimum"
    low, high = ends or (None, None)
    return Derived(value=float(values_R[0]), low=low, high=high, reason=reason)


def _described(flops: float, parabola: _Parabola | None, minima_R: np.ndarray) -> IsoFlop:
    if parabola is None:
        reason = f"fewer than {_LEAST_POINTS} sizes are within a tenth of the least loss"
        return IsoFlop(flops=flops, n_points=0, reason=reason)
    points = len(parabola.x_P)
    if not np.isfinite(minima_R[0]):
        return IsoFlop(flops=flops, n_points=points, reason="the least loss is not within the sizes")
    n_opt = float(np.exp(minima_R[0]))
    low, high = interval(np.exp(minima_R[1:])) or (None, None)
    x = minima_R[0] - parabola.centre
    constants_3 = parabola.solver_3P @ parabola.losses_P
    return IsoFlop(
        flops=flops,
        n_points=points,
        n_opt=n_opt,
        low=low,
        high=high,
        tokens=flops / (6 * n_opt),
        loss=float(np.array([x**2, x, 1.0]) @ constants_3),
        curvature=float(constants_3[0]),
    )

"""Where in the context a model stops to improve: its loss as a power law of the position.

Shapes: P positions, K bins of positions, G exponents tried, R repetitions of the bootstrap.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

FEWEST_POSITIONS = 32
_EXPONENTS = (0.02, 5.0)
_ZOOMS = 7


@dataclass(frozen=True, eq=False)
class ContextGain:
    """L(T) = a + b T^−c, T tokens of context, nats per token (Kaplan et al. 2020, Sec. 3.2.1 and App. D.5)."""

    positions_K: np.ndarray
    """T of each bin: the geometric mean of its positions, weighted by tokens."""
    losses_K: np.ndarray
    stderrs_K: np.ndarray
    window: int
    """The most context there is."""
    improves: bool
    """Whether the loss falls with context beyond what noise does; if not, there is no exponent."""
    a: float | None
    b: float | None
    exponent: float | None
    """c."""
    exponent_low: float | None
    exponent_high: float | None
    stops_at: float | None
    """The T from which a doubling of the context gains less than the share; None if even the window's last does more,
    and where nothing improves."""
    stops_low: float | None
    stops_high: float | None
    """None where the interval's end lies beyond the window's last doubling."""
    share: float
    confidence: float
    first_loss: float
    """After one token, which is the prefix token where a document begins."""
    first_stderr: float

    def facts(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in asdict(self).items()
        }

    def plot(self) -> Figure:
        """Return a figure of the loss by position."""
        from lmsat_plugin.report.context_figure import context_figure

        return context_figure({"loss": [(None, self)]})


def context_gain(
    arrays: Mapping[str, np.ndarray],
    share: float = 0.01,
    confidence: float = 0.9,
    repetitions: int = 1000,
    seed: int = 0,
) -> ContextGain:
    """Return the exponent, and the position from which on a doubling of the context gains less than a share.

    Least squares on bins of half a doubling, weighted by tokens, with a, b ≥ 0. The gain b T^−c (1 − 2^−c) is compared
    with the share of the loss at T. The variance of a token's loss is estimated from the scatter of all positions
    about the law; intervals are of percentiles over losses drawn anew with that noise, and the law has to beat a
    constant by more than at this confidence chance does.

    Args:
        arrays: ``loss/by_position`` and ``loss/by_position_tokens`` of lmsat_loss, shape [P].
        share: Of the loss. For scale, doubling the parameters saves 1 − 2^−0.076 = 5 % (Kaplan et al. 2020, eq. 1.1).
        confidence: Of the intervals and of the comparison.
        repetitions: Samples of the noise.
        seed: Of the samples.

    Raises:
        LmsatError: For arrays that are not there or do not belong together, and for a window that is too short.
    """
    if not 0 < share < 1 or not 0 < confidence < 1:
        raise LmsatError(
            f"share={share:g} with confidence={confidence:g} is no question: give shares from 0 to 1"
        )
    losses_P, tokens_P, contexts_P = _read(arrays)
    bins_P = np.floor(2 * np.log2(contexts_P) + 1e-9).astype(int)
    bins_P = np.unique(bins_P, return_inverse=True)[1]
    tokens_K = np.bincount(bins_P, tokens_P)
    losses_K = np.bincount(bins_P, tokens_P * losses_P) / tokens_K
    contexts_K = np.exp(np.bincount(bins_P, tokens_P * np.log(contexts_P)) / tokens_K)
    (a,), (b,), (c,), (gain,) = _fit(contexts_K, losses_K[None], tokens_K)
    residuals_P = losses_P - a - b * contexts_P**-c
    variance = float((tokens_P * residuals_P**2).sum() / (len(losses_P) - 3))
    stderrs_K = np.sqrt(variance / tokens_K)
    noise_RK = np.random.default_rng(seed).standard_normal((repetitions, len(tokens_K))) * stderrs_K
    by_chance_R = _fit(contexts_K, np.average(losses_K, weights=tokens_K) + noise_RK, tokens_K)[3]
    improves = bool(gain > np.quantile(by_chance_R, confidence))
    window = int(contexts_P[-1])
    law: dict[str, float | None] = dict.fromkeys(
        ("a", "b", "exponent", "exponent_low", "exponent_high", "stops_at", "stops_low", "stops_high")
    )
    if improves:
        a_R, b_R, c_R, _ = _fit(contexts_K, a + b * contexts_K**-c + noise_RK, tokens_K)
        ends = [(1 - confidence) / 2, (1 + confidence) / 2]
        exponents = np.quantile(c_R, ends)
        stops = np.quantile(_stops(a_R, b_R, c_R, share), ends, method="inverted_cdf")
        (stop,) = _stops(a[None], b[None], c[None], share)
        law = {
            **{"a": float(a), "b": float(b), "exponent": float(c)},
            **dict(zip(("exponent_low", "exponent_high"), map(float, exponents), strict=True)),
            **{
                name: float(value) if value <= window / 2 else None
                for name, value in zip(("stops_at", "stops_low", "stops_high"), (stop, *stops), strict=True)
            },
        }
    return ContextGain(
        contexts_K,
        losses_K,
        stderrs_K,
        window,
        improves,
        **law,
        share=share,
        confidence=confidence,
        first_loss=float(losses_P[0]),
        first_stderr=float(np.sqrt(variance / tokens_P[0])),
    )


def _read(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the loss, the tokens and the context of each position that has tokens."""
    names = ("loss/by_position", "loss/by_position_tokens")
    if missing := [name for name in names if name not in arrays]:
        raise LmsatError(f"the arrays lack {missing[0]}: run lmsat_loss again")
    losses_P, tokens_P = (np.asarray(arrays[name], dtype=np.float64) for name in names)
    if losses_P.shape != tokens_P.shape or losses_P.ndim != 1:
        raise LmsatError(
            f"the arrays of lmsat_loss do not belong together (shapes {losses_P.shape} and {tokens_P.shape}): "
            "run it again"
        )
    there_P = tokens_P > 0
    contexts_P = np.arange(1, len(losses_P) + 1)[there_P]
    if not np.isfinite(losses_P[there_P]).all():
        raise LmsatError("the losses by position are not finite: leave the checkpoint out")
    if len(contexts_P) < FEWEST_POSITIONS or contexts_P[0] != 1:
        raise LmsatError(
            f"{len(contexts_P)} positions with tokens do not show a power law: measure lmsat_loss with a window of "
            f"{FEWEST_POSITIONS} tokens or more"
        )
    return losses_P[there_P], tokens_P[there_P], contexts_P.astype(np.float64)


def _fit(x_K: np.ndarray, y_RK: np.ndarray, w_K: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return a, b, c of the least squares y = a + b x^−c with a, b ≥ 0, and how far below a constant's; shapes [R].

    For each exponent, a and b are known in closed form; the exponent is sought on a grid that closes in.
    """
    low, high = np.log(_EXPONENTS)
    log_c_RG = np.broadcast_to(np.linspace(low, high, 61), (len(y_RK), 61))
    rows = np.arange(len(y_RK))
    step = (high - low) / 60
    for _ in range(_ZOOMS):
        a_RG, b_RG, gain_RG = _linear(np.exp(log_c_RG), x_K, y_RK, w_K)
        best_R = gain_RG.argmax(1)
        found = *(values[rows, best_R] for values in (a_RG, b_RG)), np.exp(log_c_RG[rows, best_R])
        gain_R = gain_RG[rows, best_R]
        log_c_RG = log_c_RG[rows, best_R, None] + np.linspace(-step, step, 9)
        log_c_RG = log_c_RG.clip(low, high)
        step /= 4
    return *found, gain_R


def _linear(c_RG: np.ndarray, x_K: np.ndarray, y_RK: np.ndarray, w_K: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return a, b and the squares they take off those about the mean, for each exponent."""
    u_RGK = np.exp(-c_RG[..., None] * np.log(x_K))
    share_K = w_K / w_K.sum()
    mean_RG, mean_R1 = u_RGK @ share_K, (y_RK @ share_K)[:, None]
    product_RG = np.einsum("rgk,rk->rg", u_RGK, w_K * (y_RK - mean_R1))
    squares_RG = ((u_RGK - mean_RG[..., None]) ** 2) @ w_K
    b_RG = np.maximum(product_RG / squares_RG, 0)
    a_RG = mean_R1 - b_RG * mean_RG
    gain_RG = b_RG * (2 * product_RG - b_RG * squares_RG)
    # Below 0 the best a is 0, and b then that of y = b u.
    through_RG = np.einsum("rgk,rk->rg", u_RGK, w_K * y_RK) / (u_RGK**2 @ w_K)
    off_RG = mean_R1 - through_RG * mean_RG
    through_gain_RG = through_RG * (2 * product_RG - through_RG * squares_RG) - w_K.sum() * off_RG**2
    below_RG = a_RG < 0
    return (
        np.where(below_RG, 0, a_RG),
        np.where(below_RG, through_RG, b_RG),
        np.where(below_RG, through_gain_RG, gain_RG),
    )


def _stops(a_R: np.ndarray, b_R: np.ndarray, c_R: np.ndarray, share: float) -> np.ndarray:
    """Return the T at which b T^−c (1 − 2^−c) = share · (a + b T^−c), 1 at least; infinite if there is none."""
    per_term_R = b_R * (1 - 2**-c_R - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        stops_R = np.where(per_term_R > 0, (share * a_R / per_term_R) ** (-1 / c_R), 1.0)
    return np.maximum(stops_R, 1.0)

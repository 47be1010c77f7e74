"""What a longer context gains each checkpoint (`find_context`), by a power law of the loss by position.

Shapes: P positions, K bins of positions, R simulated tables of losses, G exponents tried.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_share, check_simulation
from lmsat_plugin.analysis.input_tables import records
from lmsat_plugin.analysis.losses import loss_of_results
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE, interval
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.json_values import as_dict, as_text
from lmsat_plugin.results.series import labelled
from lmsat_plugin.results.training_order import natural_places
from lmsat_plugin.results.tree import Results

logger = logging.getLogger(__name__)

FEWEST_POSITIONS = 32
_EXPONENTS = (0.02, 5.0)
_GRID, _ZOOMS = 61, 7


@dataclass(frozen=True, eq=False, kw_only=True)
class ContextGain:
    """L(T) = a + b T^−c, in nats per token after T tokens of context (Kaplan et al. 2020, Sec. 3.2.1, App. D.5)."""

    positions_K: np.ndarray
    """T of each bin: the geometric mean of its positions, weighted by tokens."""
    losses_K: np.ndarray
    stderrs_K: np.ndarray
    window: int
    """The longest context, in tokens."""
    improves: bool
    """Whether the loss falls with the context by more than noise explains; if not, there is no exponent."""
    a: float | None = None
    b: float | None = None
    exponent: float | None = None
    """c."""
    exponent_low: float | None = None
    exponent_high: float | None = None
    stops_at: float | None = None
    """The T from which on a doubling gains less than ``share``; None if the last gains more, or nothing improves."""
    stops_low: float | None = None
    stops_high: float | None = None
    """``stops_low`` and ``stops_high`` are None where the interval's end lies beyond the last doubling."""
    share: float
    confidence: float
    first_loss: float
    """The loss after one token: the prefix token at the beginning of a document, and with ``prefix=document`` also the
    last token of a window before."""
    first_stderr: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in asdict(self).items()}


def context_gain(
    arrays: Mapping[str, np.ndarray],
    share: float = 0.01,
    confidence: float = CONFIDENCE,
    repetitions: int = 1000,
    seed: int = 0,
) -> ContextGain:
    """Return the law of the loss by position, and the position from which on a longer context gains little.

    The law is fitted to bins of half a doubling by least squares, weighted by tokens, with a, b ≥ 0. The gain of a
    doubling, b T^−c (1 − 2^−c), is compared with a share of the loss at T. The variance of a token's loss is that of
    the positions about the law. Intervals are of percentiles over losses simulated with that noise. The loss improves
    with the context if the law explains more than it does in losses simulated about a constant.

    Args:
        arrays: ``loss/by_position`` and ``loss/by_position_tokens`` of lmsat_loss, shape [P].
        share: Of the loss. For comparison, twice the parameters save 1 − 2^−0.076 = 5 % (Kaplan et al. 2020, eq. 1.1).
        confidence: Of the intervals and of the comparison with a constant.
        repetitions, seed: Of the simulation.

    Raises:
        LmsatError: For arrays that are missing or do not belong together, and for a window that is too short.
    """
    check_share("share", share)
    check_share("confidence", confidence)
    check_simulation(repetitions, seed, usual=1000, least=100)
    losses_P, tokens_P, contexts_P = _read(arrays)
    bins_P = np.floor(2 * np.log2(contexts_P) + 1e-9).astype(int)
    bins_P = np.unique(bins_P, return_inverse=True)[1]
    tokens_K = np.bincount(bins_P, tokens_P)
    losses_K = np.bincount(bins_P, tokens_P * losses_P) / tokens_K
    contexts_K = np.exp(np.bincount(bins_P, tokens_P * np.log(contexts_P)) / tokens_K)
    (a,), (b,), (c,), (gain,) = fit_power_decay(contexts_K, losses_K[None], tokens_K)
    residuals_P = losses_P - a - b * contexts_P**-c
    variance = float((tokens_P * residuals_P**2).sum() / (len(losses_P) - 3))
    stderrs_K = np.sqrt(variance / tokens_K)
    noise_RK = np.random.default_rng(seed).standard_normal((repetitions, len(tokens_K))) * stderrs_K
    by_chance_R = fit_power_decay(contexts_K, np.average(losses_K, weights=tokens_K) + noise_RK, tokens_K)[3]
    improves = bool(gain > np.quantile(by_chance_R, confidence))
    window = int(contexts_P[-1])
    law: dict[str, float | None] = {}
    if improves:
        a_R, b_R, c_R, _ = fit_power_decay(contexts_K, a + b * contexts_K**-c + noise_RK, tokens_K)
        exponents = interval(c_R, confidence=confidence)
        stops = interval(_stops(a_R, b_R, c_R, share), confidence=confidence)
        assert exponents is not None
        assert stops is not None
        (stop,) = _stops(a[None], b[None], c[None], share)
        law = {"a": float(a), "b": float(b), "exponent": float(c)}
        law["exponent_low"], law["exponent_high"] = exponents
        for name, value in zip(("stops_at", "stops_low", "stops_high"), (stop, *stops), strict=True):
            law[name] = float(value) if value <= window / 2 else None
    return ContextGain(
        positions_K=contexts_K,
        losses_K=losses_K,
        stderrs_K=stderrs_K,
        window=window,
        improves=improves,
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
    seen_P = tokens_P > 0
    contexts_P = np.arange(1, len(losses_P) + 1)[seen_P]
    if not np.isfinite(losses_P[seen_P]).all():
        raise LmsatError("the losses by position are not finite: leave the checkpoint out")
    if len(contexts_P) < FEWEST_POSITIONS or contexts_P[0] != 1:
        raise LmsatError(
            f"{len(contexts_P)} positions with tokens do not show a power law: measure lmsat_loss with a window of "
            f"{FEWEST_POSITIONS} tokens or more"
        )
    return losses_P[seen_P], tokens_P[seen_P], contexts_P.astype(np.float64)


def _stops(a_R: np.ndarray, b_R: np.ndarray, c_R: np.ndarray, share: float) -> np.ndarray:
    """Return the T at which b T^−c (1 − 2^−c) = share · (a + b T^−c), at least 1; infinite if there is none."""
    per_term_R = b_R * (1 - 2**-c_R - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        stops_R = np.where(per_term_R > 0, (share * a_R / per_term_R) ** (-1 / c_R), 1.0)
    return np.maximum(stops_R, 1.0)


def fit_power_decay(
    x_K: np.ndarray, y_RK: np.ndarray, weights_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit y = a + b x^−c by weighted least squares: return a ≥ 0, b ≥ 0, c and what the curve explains, shapes [R].

    At a given exponent a and b have closed forms. The exponent, from 0.02 to 5, is of a grid refined to 1e-5 in ln c.
    What the curve explains is the sum of squares of a constant minus that of the curve.
    """
    low, high = np.log(_EXPONENTS)
    log_c_RG = np.linspace(low, high, _GRID)[None]
    rows = np.arange(len(y_RK))
    step = (high - low) / (_GRID - 1)
    for _ in range(_ZOOMS):
        a_RG, b_RG, gain_RG = _at_exponents(np.exp(log_c_RG), x_K, y_RK, weights_K)
        best_R = gain_RG.argmax(1)
        a_R, b_R, gain_R = (values_RG[rows, best_R] for values_RG in (a_RG, b_RG, gain_RG))
        log_c_R = np.broadcast_to(log_c_RG, gain_RG.shape)[rows, best_R]
        log_c_RG = (log_c_R[:, None] + np.linspace(-step, step, 9)).clip(low, high)
        step /= 4
    return a_R, b_R, np.exp(log_c_R), gain_R


def _at_exponents(
    c_RG: np.ndarray, x_K: np.ndarray, y_RK: np.ndarray, weights_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a, b and the squares that they explain, by exponent: shapes [R, G]. Exponents may be the same in all R."""
    u_RGK = np.exp(-c_RG[..., None] * np.log(x_K))
    share_K = weights_K / weights_K.sum()
    mean_RG, mean_R1 = u_RGK @ share_K, (y_RK @ share_K)[:, None]
    product_RG = _products(u_RGK, weights_K * (y_RK - mean_R1))
    squares_RG = ((u_RGK - mean_RG[..., None]) ** 2) @ weights_K
    b_RG = np.maximum(product_RG / squares_RG, 0)
    a_RG = mean_R1 - b_RG * mean_RG
    gain_RG = b_RG * (2 * product_RG - b_RG * squares_RG)
    # Where a would be below 0 it is 0, and b that of y = b u.
    through_RG = _products(u_RGK, weights_K * y_RK) / (u_RGK**2 @ weights_K)
    off_RG = mean_R1 - through_RG * mean_RG
    through_gain_RG = through_RG * (2 * product_RG - through_RG * squares_RG) - weights_K.sum() * off_RG**2
    below_RG = a_RG < 0
    return (
        np.where(below_RG, 0, a_RG),
        np.where(below_RG, through_RG, b_RG),
        np.where(below_RG, through_gain_RG, gain_RG),
    )


def _products(u_RGK: np.ndarray, y_RK: np.ndarray) -> np.ndarray:
    """Return Σ_k u y, shape [R, G]."""
    return y_RK @ u_RGK[0].T if len(u_RGK) == 1 else np.einsum("rgk,rk->rg", u_RGK, y_RK)


@dataclass(frozen=True)
class CheckpointContext:
    """How the loss of one checkpoint falls with the position in the context."""

    model: str
    variant: str | None
    """What distinguishes this result from others of the model; None where nothing does."""
    revision: str | None
    step: int | None
    loss: float
    """Of all positions, nats per token."""
    prefix: str
    """Where the prefix token stood: before every ``window``, or before each ``document`` alone."""
    gain: ContextGain
    label: str
    """The name of its series, for people."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat context --json`` prints it."""
        checkpoint = {key: getattr(self, key) for key in ("model", "variant", "revision", "step", "loss", "prefix")}
        return {**checkpoint, **self.gain.to_dict()}


def find_context(results: Results) -> list[CheckpointContext]:
    """Return the gain of context for each checkpoint, by model and step, from the arrays of lmsat_loss.

    Checkpoints whose arrays cannot be read are left out with a warning. Raises `LmsatError` if none can be read, and
    for losses on several texts.
    """
    contexts, skipped = [], []
    losses = labelled(loss_of_results(results).assign(name=lambda own: own.model))
    losses = losses.sort_values(["model", "at"], na_position="first", kind="stable", key=natural_places)
    for row in records(losses):
        try:
            gain = context_gain(results.arrays(row["path"], "lmsat_loss", "loss/"))
            text = as_dict(results.files[row["path"]].notes("lmsat_loss").get("corpus"))
        except LmsatError as error:
            skipped.append(LmsatError(f"{results.files[row['path']].path}: {error}"))
            continue
        contexts.append(
            CheckpointContext(
                model=row["name"],
                label=row["model"],
                variant=row["variant"],
                revision=row["revision"],
                step=row["step"],
                loss=row["loss"],
                prefix=as_text(text.get("prefix")) or "document",
                gain=gain,
            )
        )
    if not contexts:
        raise skipped[0]
    for reason in skipped:
        logger.warning("Left out: %s", reason)
    return contexts

"""The published constants of Kaplan et al. 2020, and the formulas that follow from them without a fit.

N is the number of parameters without embeddings, D of tokens, S of steps, B of tokens in a batch, C = 6NBS the compute
in PF-days, L the loss in nats per token. The losses are those of WebText2 with GPT-2's tokenizer and 1,024 tokens of
context: ratios of losses, more than losses, carry over to other corpora (Sec. 3.2.2).

All functions take numbers or arrays, which broadcast, and raise `LmsatError` for values that are not above 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.outside_text import shortened

PF_DAY = 8.64e19
"""Floating-point operations in a PF-day, 10¹⁵ a second for a day."""

X = TypeVar("X", float, np.ndarray)


@dataclass(frozen=True)
class PowerLaw:
    """L(x) = (scale / x)^exponent."""

    exponent: float
    scale: float
    source: str

    def loss(self, x: X) -> X:
        """Return L(x)."""
        _check(x=x)
        return (self.scale / x) ** self.exponent

    def at_loss(self, loss: X) -> X:
        """Return the x at which the loss is L: scale / L^(1/exponent)."""
        _check(loss=loss)
        return self.scale / loss ** (1 / self.exponent)


N = PowerLaw(exponent=0.076, scale=8.8e13, source="eq. 1.1, Table 5")
D = PowerLaw(exponent=0.095, scale=5.4e13, source="eq. 1.2, Table 5")
C_MIN = PowerLaw(exponent=0.050, scale=3.1e8, source="eq. 1.3, Table 5")
B = PowerLaw(exponent=0.21, scale=2e8, source="eq. 1.4")
N_WITH_D = PowerLaw(exponent=0.076, scale=6.4e13, source="eq. 1.5, Table 2")
D_WITH_N = PowerLaw(exponent=0.103, scale=1.8e13, source="eq. 1.5, Table 2")
N_WITH_S = PowerLaw(exponent=0.077, scale=6.5e13, source="eq. 1.6, Table 3")
S_WITH_N = PowerLaw(exponent=0.76, scale=2.1e3, source="eq. 1.6, Tables 3 and 5")
TABLE_6 = {"n_opt": (1.3e9, 0.73), "batch": (2.0e6, 0.24), "s_min": (5.4e3, 0.03), "d_opt": (2e10, 0.27)}
"""Scale and exponent of the fields of `ComputeOptimal`, as powers of C_min."""
EFFICIENT_EXCESS = N_WITH_S.exponent / S_WITH_N.exponent
"""How far above its converged loss the optimal training stops, as a share: f = α_N/α_S (App. B)."""


def loss_of_n_d(n: X, d: X, of_n: PowerLaw = N_WITH_D, of_d: PowerLaw = D_WITH_N) -> X:
    """Return the loss of N parameters stopped early on D tokens: [(N_c/N)^(α_N/α_D) + D_c/D]^α_D (eq. 1.5).

    The constants are the joint fit of Table 2; `N` and `D`, of Table 5, were fitted one at a time.
    """
    _check(n=n, d=d)
    return ((of_n.scale / n) ** (of_n.exponent / of_d.exponent) + of_d.scale / d) ** of_d.exponent


def critical_batch(loss: X, law: PowerLaw = B) -> X:
    """Return the critical batch in tokens at a loss, B_* / L^(1/α_B) (eq. 1.4), whatever the size of the model."""
    return law.at_loss(loss)


def s_min(s: X, batch_tokens: X, loss: X) -> X:
    """Return the steps that a batch far above the critical one needs instead of S: S / (1 + B_crit/B) (eq. 5.4)."""
    _check(s=s, batch_tokens=batch_tokens)
    return s / (1 + critical_batch(loss) / batch_tokens)


def tokens_of_steps(s: X, s_min: X, loss: X) -> X:
    """Return the tokens that reach a loss in S steps, of which at least S_min are needed.

    (S/S_min − 1)(E/E_min − 1) = 1 with E_min = B_crit · S_min (eq. 5.1); infinite at S_min itself.
    Raises `LmsatError` for fewer steps than S_min, too.
    """
    _check(s=s, s_min=s_min)
    if np.any(np.less(s, s_min)):
        raise LmsatError(f"{_worst(s)} steps are fewer than S_min={_worst(s_min)}, which any batch needs: give more")
    with np.errstate(divide="ignore"):
        beyond = 1 + np.divide(1, s / s_min - 1)
    return critical_batch(loss) * s_min * beyond


def overfitting(n: X, d: X) -> X:
    """Return δL = L(N, D) / L(N, ∞) − 1 = (1 + (N/N_c)^(α_N/α_D) D_c/D)^α_D − 1 (eq. 4.3, Table 2)."""
    _check(n=n, d=d)
    per_token = (n / N_WITH_D.scale) ** (N_WITH_D.exponent / D_WITH_N.exponent)
    return (1 + per_token * D_WITH_N.scale / d) ** D_WITH_N.exponent - 1


def data_needed(n: X, penalty: float = 0.02) -> X:
    """Return the tokens at which `overfitting` equals the penalty, the exact solution of eq. 4.3.

    The losses of different seeds differ by about 0.02 (Sec. 4.2).
    """
    _check(n=n, penalty=penalty)
    per_token = (n / N_WITH_D.scale) ** (N_WITH_D.exponent / D_WITH_N.exponent)
    return per_token * D_WITH_N.scale / ((1 + penalty) ** (1 / D_WITH_N.exponent) - 1)


def data_needed_rule(n: X) -> X:
    """Return the tokens that keep `overfitting` below 0.02 by the paper's rule, 5·10³ N^0.74 (eq. 4.4)."""
    _check(n=n)
    return 5e3 * n**0.74


def early_stopping_steps(n: X, d: X) -> X:
    """Return the least step at which a model on D tokens should stop: S_c / [L(N, D) − L(N, ∞)]^(1/α_S) (eq. 5.7).

    The losses are those of Table 2, S_c and α_S those of Table 3. It is a lower bound, in steps with a large batch.
    """
    return S_WITH_N.at_loss(loss_of_n_d(n, d) - N_WITH_D.loss(n))


@dataclass(frozen=True, eq=False)
class ComputeOptimal(Generic[X]):
    """The optimum for C_min PF-days, the compute with a batch far below the critical one; numbers or arrays."""

    n_opt: X
    """Parameters without embeddings."""
    batch: X
    """The critical batch, in tokens."""
    s_min: X
    """The fewest steps, with a batch far above the critical one; at the critical batch there are twice as many."""
    d_opt: X
    """Tokens, each seen once, of a training at the critical batch, which takes twice C_min (Sec. 6.3)."""
    loss: X


def compute_optimal(c_min: X) -> ComputeOptimal[X]:
    """Return the optimum by the empirical fits of Table 6, and its loss by eq. 1.3."""
    _check(c_min=c_min)
    fits = {name: scale * c_min**exponent for name, (scale, exponent) in TABLE_6.items()}
    return ComputeOptimal(**fits, loss=C_MIN.loss(c_min))


def compute_for_size(n_opt: X) -> X:
    """Return the C_min in PF-days at which a size is optimal, by the fit of Table 6."""
    _check(n_opt=n_opt)
    scale, exponent = TABLE_6["n_opt"]
    return (n_opt / scale) ** (1 / exponent)


def alpha_c_min(of_n: PowerLaw = N, of_s: PowerLaw = S_WITH_N, of_b: PowerLaw = B) -> float:
    """Return the exponent of L(C_min) that the other laws imply: 1 / (1/α_S + 1/α_B + 1/α_N) (eq. 1.8)."""
    return 1 / (1 / of_s.exponent + 1 / of_b.exponent + 1 / of_n.exponent)


def compute_optimal_implied(c_min: X) -> ComputeOptimal[X]:
    """Return the optimum that eqs. 1.4 and 1.6 imply (App. B): C_min = 6 N B_crit(L) S_min at the least L.

    N, batch and steps grow as C_min to α_C over α_N, α_B and α_S: α_C of eq. 1.8, the others of Table 3 and eq. 1.4.
    """
    _check(c_min=c_min)
    excess = 1 + EFFICIENT_EXCESS
    # At the optimum both terms of the loss L are fixed shares of it, so N and S_min are powers of L.
    at_one = 6 * N_WITH_S.scale * S_WITH_N.scale * B.scale / PF_DAY
    at_one *= excess ** (1 / N_WITH_S.exponent) * (excess / EFFICIENT_EXCESS) ** (1 / S_WITH_N.exponent)
    loss = (at_one / c_min) ** alpha_c_min(N_WITH_S)
    n_opt, steps = N_WITH_S.at_loss(loss / excess), S_WITH_N.at_loss(loss * EFFICIENT_EXCESS / excess)
    batch = critical_batch(loss)
    return ComputeOptimal(n_opt=n_opt, batch=batch, s_min=steps, d_opt=2 * batch * steps, loss=loss)


@dataclass(frozen=True, eq=False)
class Ratio(Generic[X]):
    """Two trainings to the same loss: parameters, steps and compute of one over those of the other."""

    params: X
    steps: X
    compute: X


def efficient_against(excess: X) -> Ratio[X]:
    """Compare the optimal training with one that stops at ``excess``, a share, above its converged loss (App. B).

    Params: ((1 + f) / (1 + f'))^(1/α_N), steps: ((1 + 1/f) / (1 + 1/f'))^(1/α_S), compute, at B_crit: their product.
    """
    _check(excess=excess)
    params = ((1 + EFFICIENT_EXCESS) / (1 + excess)) ** (1 / N_WITH_S.exponent)
    steps = ((1 + 1 / EFFICIENT_EXCESS) / (1 + 1 / excess)) ** (1 / S_WITH_N.exponent)
    return Ratio(params=params, steps=steps, compute=params * steps)


def suboptimal_size(params: X) -> Ratio[X]:
    """Compare a model of ``params`` times the optimal size, trained to the same loss, with that size (App. B).

    Steps: [1 + (α_S/α_N) (1 − params^(−α_N))]^(−1/α_S), infinite for a model too small to reach the loss.
    """
    _check(params=params)
    left = np.maximum(1 + (1 - params**-N_WITH_S.exponent) / EFFICIENT_EXCESS, 0)
    with np.errstate(divide="ignore"):
        steps = np.power(left, -1 / S_WITH_N.exponent)
    return Ratio(params=params, steps=steps, compute=params * steps)


@dataclass(frozen=True)
class Breakdown:
    """Where the laws contradict each other, so that one of them must fail before (Sec. 6.3)."""

    c_min: float
    n: float
    d: float
    loss: float


def breakdown() -> Breakdown:
    """Return where L(C_min) falls below L(D) of the tokens that the optimal training sees (Sec. 6.3).

    By eqs. 1.2, 1.3 and Table 6. The paper prints C_min = 10⁴, N = D = 10¹² and L = 1.7, uncertain by a factor of ten.
    """
    scale, exponent = TABLE_6["d_opt"]
    c_min = (D.loss(scale) / C_MIN.loss(1.0)) ** (1 / (D.exponent * exponent - C_MIN.exponent))
    there = compute_optimal(c_min)
    return Breakdown(c_min=c_min, n=there.n_opt, d=there.d_opt, loss=there.loss)


def _check(**values: float | np.ndarray) -> None:
    """Raise `LmsatError` that names the value which is not above 0."""
    for name, value in values.items():
        known = np.asarray(value)
        if known.dtype.kind not in "iuf":
            raise LmsatError(f"{name}={shortened(value)} is no number: give one above 0")
        if not (np.greater(known, 0) & np.isfinite(known)).all():
            raise LmsatError(f"{name}={_worst(known)} is not above 0 and finite: correct it")


def _worst(values: float | np.ndarray) -> str:
    """Return the least value, or NaN if one is NaN, for a message."""
    return f"{np.min(values):g}"

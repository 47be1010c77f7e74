"""The optimal size and tokens for a compute, by Kaplan et al. 2020, Hoffmann et al. 2022 and Besiroglu et al. 2024.

C = 6ND floating-point operations, N parameters, D tokens. Kaplan counts N without embeddings, Hoffmann with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmsat_plugin.analysis.given_numbers import check_number
from lmsat_plugin.analysis.scaling_laws import kaplan
from lmsat_plugin.errors import LmsatError


@dataclass(frozen=True)
class Chinchilla:
    """L(N, D) = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, eq. 2), nats per token of MassiveText."""

    name: str
    A: float
    B: float
    E: float
    alpha: float
    beta: float

    @property
    def exponent(self) -> float:
        """The exponent a of N_opt ∝ C^a: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def per_compute(self) -> float:
        """The factor G of N_opt = G (C/6)^a: (alpha A / (beta B))^(1/(alpha + beta))."""
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))

    def n_opt(self, flops: float) -> float:
        """Return the number of parameters with the least loss for a compute C = 6ND (Hoffmann et al. 2022, eq. 4)."""
        return self.per_compute * (flops / 6) ** self.exponent

    def flops(self, n_opt: float) -> float:
        """Return the compute at which a size is optimal."""
        return 6 * (n_opt / self.per_compute) ** (1 / self.exponent)

    def loss(self, n: float, d: float) -> float:
        """Return L(N, D), in nats per token."""
        return self.E + self.A / n**self.alpha + self.B / d**self.beta


HOFFMANN = Chinchilla(
    name="Hoffmann et al. 2022",
    A=math.exp(6.0073404),
    B=math.exp(6.0179186),
    E=math.exp(0.5267228),
    alpha=0.33917084,
    beta=0.2849083,
)
"""Approach 3, unrounded, from the source of the paper, which prints 406.4, 410.7, 1.69, 0.34 and 0.28."""
BESIROGLU = Chinchilla(name="Besiroglu et al. 2024", A=482.01, B=2085.43, E=1.8169, alpha=0.3478, beta=0.3658)
"""The refit of Hoffmann's points (arXiv 2404.10102)."""

_MOST = 1e40


@dataclass(frozen=True)
class Advice:
    """The optimum of one paper, at C = 6ND."""

    source: str
    n_params: float
    tokens: float
    tokens_per_param: float
    flops: float
    loss: float
    """Nats per token of the paper's corpus and tokenizer: losses of different papers do not compare."""


@dataclass(frozen=True)
class KaplanDetails:
    """What else follows for the optimal training from the fits of Kaplan et al. 2020."""

    converged_loss: float
    """The loss of the optimal size on unlimited data (eq. 1.1)."""
    stop_above_converged: float
    """How far above the converged loss the optimal training stops, as a share (App. B)."""
    converged_compute: float
    """Compute to reach the loss at 2 % above convergence over that of the optimal training (App. B)."""
    half_size_compute: float
    double_size_compute: float
    """Compute to reach the loss with half or twice the optimal size over that of the optimal training."""
    tokens_at_twice_s_min: float
    """Tokens that reach the loss in twice the fewest steps (eq. 5.1)."""
    overfitting: float
    """How much the loss rises, as a share, with only the tokens of a training at the critical batch (eq. 4.3)."""
    early_stopping_steps: float
    """The least step at which a training on these tokens should stop (eq. 5.7)."""
    joint_loss: float
    """The loss of the optimal size stopped early on these tokens (eq. 1.5)."""
    implied: kaplan.ComputeOptimal
    """The optimum that eqs. 1.4 and 1.6 imply, instead of the fits of Table 6 (App. B)."""
    implied_exponent: float
    """The exponent of L(C_min), by eq. 1.8."""
    breakdown: kaplan.Breakdown
    """The compute beyond which the laws contradict each other (Sec. 6.3)."""


@dataclass(frozen=True)
class Allocation:
    """The optima of three papers, Kaplan's first, and more on that one."""

    answers: tuple[Advice, ...]
    critical_batch: float
    """Tokens; a training with this batch takes twice the tokens and the compute (eqs. 5.4, 5.5)."""
    s_min: float
    """Steps with a batch far above the critical one; at the critical batch there are twice as many."""
    data_needed: float
    """Tokens at which overfitting costs 2 % of the loss (eq. 4.3)."""
    data_needed_rule: float
    """The same by the rule 5·10³ N^0.74 (eq. 4.4)."""
    kaplan: KaplanDetails


def allocate(*, flops: float | None = None, n_params: float | None = None) -> Allocation:
    """Return the optimal size and tokens for a compute, or the compute for which a size is optimal.

    Kaplan's are the fits of Table 6 with the compute as C_min, that is with a batch far below the critical one.
    Raises `LmsatError` unless exactly one of both is given, from 1 to 10⁴⁰.
    """
    if (flops is None) == (n_params is None):
        raise LmsatError("give either a compute or a number of parameters, not both or neither")
    given = flops if n_params is None else n_params
    assert given is not None
    name = "n_params" if flops is None else "flops"
    check_number(name, given, f"give a number from 1 to {_MOST:g}", least=1, most=_MOST, ends=True)
    c_min = given / kaplan.PF_DAY if n_params is None else kaplan.compute_for_size(n_params)
    best = kaplan.compute_optimal(c_min)
    answers = [_advice("Kaplan et al. 2020", best.n_opt, c_min * kaplan.PF_DAY, best.loss)]
    for law in (HOFFMANN, BESIROGLU):
        compute = given if n_params is None else law.flops(n_params)
        n = law.n_opt(compute)
        answers.append(_advice(law.name, n, compute, law.loss(n, compute / (6 * n))))
    return Allocation(
        answers=tuple(answers),
        critical_batch=best.batch,
        s_min=best.s_min,
        data_needed=kaplan.data_needed(best.n_opt),
        data_needed_rule=kaplan.data_needed_rule(best.n_opt),
        kaplan=KaplanDetails(
            converged_loss=kaplan.N.loss(best.n_opt),
            stop_above_converged=kaplan.EFFICIENT_EXCESS,
            converged_compute=1 / kaplan.efficient_against(0.02).compute,
            half_size_compute=kaplan.suboptimal_size(0.5).compute,
            double_size_compute=kaplan.suboptimal_size(2.0).compute,
            tokens_at_twice_s_min=kaplan.tokens_of_steps(2 * best.s_min, best.s_min, best.loss),
            overfitting=kaplan.overfitting(best.n_opt, best.d_opt),
            early_stopping_steps=kaplan.early_stopping_steps(best.n_opt, best.d_opt),
            joint_loss=kaplan.loss_of_n_d(best.n_opt, best.d_opt),
            implied=kaplan.compute_optimal_implied(c_min),
            implied_exponent=kaplan.alpha_c_min(),
            breakdown=kaplan.breakdown(),
        ),
    )


def _advice(source: str, n_params: float, flops: float, loss: float) -> Advice:
    tokens = flops / (6 * n_params)
    return Advice(
        source=source, n_params=n_params, tokens=tokens, tokens_per_param=tokens / n_params, flops=flops, loss=loss
    )

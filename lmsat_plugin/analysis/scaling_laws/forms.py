"""The forms of laws, a sum of powers and a line: the log loss as a function of the constants, with derivatives.

Shapes: P points, K terms, Q constants, R sets of constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Variables = dict[str, np.ndarray]
"""A law's variables by name, each of shape [P]."""
_LARGEST_LOG = 700.0
_LEAST_LOSS = 1e-9


@dataclass(frozen=True)
class Term:
    """One term of a `PowerSum`: a power of a variable; or a constant, without exponent and variable."""

    coefficient: str
    exponent: str | None = None
    variable: str | None = None


@dataclass(frozen=True)
class PowerSum:
    """L = [Σ_k t_k^(1/p)]^p, with terms t_k = A / x^alpha, or (A / x)^alpha, or A.

    The fit keeps the logarithms of the coefficients, which come first, and the exponents as they are.
    """

    terms: tuple[Term, ...]
    inside: bool = False
    """Whether terms are (A / x)^alpha, as in Kaplan et al. 2020, and not A / x^alpha, as in Hoffmann et al. 2022."""
    outer: str | None = None
    """The exponent that is p, as alpha_D in Kaplan et al. 2020, eq. 1.5; None for p = 1."""

    @cached_property
    def exponents(self) -> tuple[str, ...]:
        """The exponents, in which the law is not linear."""
        return tuple(term.exponent for term in self.terms if term.exponent is not None)

    @cached_property
    def coefficients(self) -> tuple[str, ...]:
        """The coefficients, none of them below 0."""
        return tuple(term.coefficient for term in self.terms)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All constants, in the order of the fit."""
        return (*self.coefficients, *self.exponents)

    def prepare(self, values: Variables) -> Variables:
        """Return the logarithms of the variables."""
        return {name: np.log(value_P) for name, value_P in values.items()}

    def internal(self, values: Mapping[str, float]) -> np.ndarray:
        """Return constants as the fit keeps them, shape [Q]; NaN for those that are missing."""
        theta_Q = np.array([values.get(name, np.nan) for name in self.names], dtype=np.float64)
        with np.errstate(divide="ignore"):
            theta_Q[: len(self.terms)] = np.log(theta_Q[: len(self.terms)])
        return theta_Q

    def external(self, theta_RQ: np.ndarray) -> dict[str, np.ndarray]:
        """Return the constants by name, each of shape [R]."""
        values_RQ = theta_RQ.copy()
        values_RQ[:, : len(self.terms)] = np.exp(np.minimum(values_RQ[:, : len(self.terms)], _LARGEST_LOG))
        return dict(zip(self.names, values_RQ.T, strict=True))

    def log_terms(self, theta_RQ: np.ndarray, variables: Variables) -> tuple[np.ndarray, np.ndarray]:
        """Return ln t_k / p and p, shapes [K, R, P] and [R, 1]."""
        points = len(next(iter(variables.values())))
        p_R1 = theta_RQ[:, [self.names.index(self.outer)]] if self.outer else np.ones((len(theta_RQ), 1))
        logs_KRP = np.empty((len(self.terms), len(theta_RQ), points))
        for k, term in enumerate(self.terms):
            logs_KRP[k] = theta_RQ[:, [k]]
            if term.exponent is not None and term.variable is not None:
                exponent_R1, x_P = theta_RQ[:, [self.names.index(term.exponent)]], variables[term.variable]
                if self.inside:
                    logs_KRP[k] *= exponent_R1
                logs_KRP[k] -= exponent_R1 * x_P
        return logs_KRP / p_R1, p_R1

    def log_losses(self, theta_RQ: np.ndarray, variables: Variables) -> tuple[np.ndarray, np.ndarray]:
        """Return ln L by log-sum-exp, shape [R, P], and its derivatives by the constants, shape [R, P, Q]."""
        logs_KRP, p_R1 = self.log_terms(theta_RQ, variables)
        greatest_RP = logs_KRP.max(0)
        shares_KRP = np.exp(logs_KRP - greatest_RP)
        sums_RP = shares_KRP.sum(0)
        shares_KRP /= sums_RP
        sums_RP = np.log(sums_RP) + greatest_RP
        derivatives_RPQ = np.zeros((*sums_RP.shape, len(self.names)))
        for k, term in enumerate(self.terms):
            derivatives_RPQ[..., k] = shares_KRP[k]
            if term.exponent is None or term.variable is None:
                continue
            exponent, x_P = self.names.index(term.exponent), variables[term.variable]
            slopes_RP = theta_RQ[:, [k]] - x_P if self.inside else -x_P
            derivatives_RPQ[..., exponent] = shares_KRP[k] * slopes_RP
            if self.inside:
                derivatives_RPQ[..., k] *= theta_RQ[:, [exponent]]
        if self.outer:
            entropies_RP = sums_RP - (shares_KRP * logs_KRP).sum(0)
            derivatives_RPQ[..., self.names.index(self.outer)] += entropies_RP
        return p_R1 * sums_RP, derivatives_RPQ


@dataclass(frozen=True)
class Line:
    """L = offset + slope · x. The fit keeps both as they are."""

    variable: str
    exponents = ()
    coefficients = ()
    names = ("offset", "slope")

    def prepare(self, values: Variables) -> Variables:
        """Return the variable as it is."""
        return values

    def internal(self, values: Mapping[str, float]) -> np.ndarray:
        """Return constants as the fit keeps them, shape [Q]; NaN for those that are missing."""
        return np.array([values.get(name, np.nan) for name in self.names], dtype=np.float64)

    def external(self, theta_RQ: np.ndarray) -> dict[str, np.ndarray]:
        """Return the constants by name, each of shape [R]."""
        return dict(zip(self.names, theta_RQ.T, strict=True))

    def log_losses(self, theta_RQ: np.ndarray, variables: Variables) -> tuple[np.ndarray, np.ndarray]:
        """Return ln L, shape [R, P], and its derivatives by the constants, shape [R, P, Q].

        Losses that would be below 0 are set just above it, so that the fit can leave such lines.
        """
        x_P = variables[self.variable]
        losses_RP = np.maximum(theta_RQ[:, [0]] + theta_RQ[:, [1]] * x_P, _LEAST_LOSS)
        return np.log(losses_RP), np.stack([1 / losses_RP, x_P / losses_RP], axis=-1)

"""Which constants of a law the points say nothing of, and why: their intervals are null.

Shapes: P points, Q constants.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmsat_plugin.analysis.scaling_laws.forms import PowerSum, Term
from lmsat_plugin.analysis.scaling_laws.huber_regression import GRID
from lmsat_plugin.analysis.scaling_laws.laws import Law, Points

PARALLEL = 0.95
"""The correlation of the logarithms of two variables from which on their terms cannot be told apart."""
_NEGLIGIBLE = 1e-6


def unidentified(law: Law, points: Points, theta_Q: np.ndarray, free: list[str]) -> dict[str, str]:
    """Return a reason for each fitted constant, and each derived value's name, that the points do not tell.

    Two variables that go together leave their terms undecided; a term at zero, its exponent; an exponent at its bound,
    its coefficient.
    """
    form = law.form
    reasons: dict[str, str] = {}
    if not isinstance(form, PowerSum):
        return reasons
    values = dict(zip(form.names, theta_Q, strict=True))
    if parallel := _parallel(form, points, free):
        for term in form.terms:
            if term.variable is not None:
                _give(reasons, term, parallel, free)
    logs_KRP, p_R1 = form.log_terms(theta_Q[None], points.variables)
    shares_KP = np.exp((p_R1 * logs_KRP)[:, 0] - np.log(points.losses_P))
    for term, share_P in zip(form.terms, shares_KP, strict=True):
        if term.coefficient in free and share_P.max() < _NEGLIGIBLE:
            _give(reasons, term, f"{term.coefficient} goes to 0: the points show nothing of its term", free)
        elif term.exponent in free and not GRID[0] < values[term.exponent] < GRID[-1]:
            bound = GRID[0] if values[term.exponent] <= GRID[0] else GRID[-1]
            reason = f"{term.exponent} = {values[term.exponent]:.3g} is beyond {bound:g}, the bound of what is searched"
            _give(reasons, term, reason, free)
    return reasons


def of_derived(law: Law, reasons: Mapping[str, str], derived: Mapping[str, object]) -> dict[str, str]:
    """Return a reason for each derived value that follows from exponents or coefficients without intervals."""
    about = [reasons[name] for name in law.form.names if name in reasons and name != "E"]
    return dict.fromkeys(derived, about[0]) if about else {}


def _parallel(form: PowerSum, points: Points, free: list[str]) -> str | None:
    fitted = [term for term in form.terms if term.variable and {term.coefficient, term.exponent} & set(free)]
    if len(fitted) != 2:
        return None
    first, second = (str(term.variable) for term in fitted)
    x_P, y_P = points.variables[first], points.variables[second]
    if not (np.ptp(x_P) and np.ptp(y_P)):
        return None
    correlation = float(np.corrcoef(x_P, y_P)[0, 1])
    if abs(correlation) <= PARALLEL:
        return None
    return (
        f"{first} and {second} go together (correlation of logarithms {correlation:.3f}), so that their terms can "
        "hardly be told apart"
    )


def _give(reasons: dict[str, str], term: Term, reason: str, free: list[str]) -> None:
    for name in (term.coefficient, term.exponent):
        if name in free and name is not None:
            reasons.setdefault(name, reason)

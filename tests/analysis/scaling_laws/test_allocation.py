"""The optimal size and tokens for a compute: printed values, and minimisation by hand."""

from __future__ import annotations

import math

import pytest
from scipy.optimize import minimize_scalar

from lmsat_plugin.analysis import allocate
from lmsat_plugin.analysis.scaling_laws import kaplan
from lmsat_plugin.analysis.scaling_laws.allocation import BESIROGLU, HOFFMANN
from lmsat_plugin.errors import LmsatError


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU])
def test_chinchilla_optimum_is_the_least_loss(law):
    flops = 1e21
    by_hand = minimize_scalar(
        lambda ln_n: law.loss(math.exp(ln_n), flops / 6 / math.exp(ln_n)), bounds=(15, 28), method="bounded"
    )
    assert law.n_opt(flops) == pytest.approx(math.exp(by_hand.x), rel=1e-3)
    assert law.flops(law.n_opt(flops)) == pytest.approx(flops)


def test_tokens_per_parameter_at_gophers_compute():
    kaplans, hoffmann, besiroglu = allocate(flops=5.88e23).answers
    assert hoffmann.tokens_per_param == pytest.approx(59, abs=0.5)
    assert besiroglu.tokens_per_param == pytest.approx(18.4, abs=0.05)
    assert (HOFFMANN.exponent, BESIROGLU.exponent) == pytest.approx((0.457, 0.513), abs=5e-4)
    for one in (kaplans, hoffmann, besiroglu):
        assert 6 * one.n_params * one.tokens == pytest.approx(5.88e23)


def test_one_of_both_is_needed():
    for given in ({}, {"flops": 1e20, "n_params": 1e9}):
        with pytest.raises(LmsatError, match="either"):
            allocate(**given)


def test_what_follows_for_kaplans_optimum():
    """At a PF-day: the fits of Table 6, and the formulas with their size and tokens."""
    found = allocate(flops=kaplan.PF_DAY)
    n, d = found.answers[0].n_params, found.kaplan
    assert n == pytest.approx(1.3e9)
    assert d.converged_loss == kaplan.N.loss(n)
    assert d.converged_compute == pytest.approx(1 / 0.35, rel=0.02), "printed: 65 % less compute"
    assert d.half_size_compute > 1 < d.double_size_compute
    assert d.overfitting == pytest.approx(kaplan.overfitting(n, 2e10))
    assert d.joint_loss == pytest.approx(kaplan.loss_of_n_d(n, 2e10))
    assert d.early_stopping_steps == pytest.approx(kaplan.early_stopping_steps(n, 2e10))
    # Twice the fewest steps take twice the fewest tokens.
    assert d.tokens_at_twice_s_min == pytest.approx(2 * found.critical_batch * found.s_min, rel=0.3)
    assert d.implied.loss == kaplan.compute_optimal_implied(1.0).loss
    assert d.implied_exponent == kaplan.alpha_c_min()
    assert d.breakdown == kaplan.breakdown()

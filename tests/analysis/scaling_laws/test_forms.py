"""The forms of laws: their derivatives against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from law_tables import simulated

from lmsat_plugin.analysis.scaling_laws import LAWS


@pytest.mark.parametrize("law", LAWS)
def test_derivatives(law):
    table, true = simulated(law)
    form, points = LAWS[law].form, LAWS[law].read(table, LAWS[law].counts[0] if LAWS[law].counts else None)
    theta = form.internal(true)
    analytic = form.log_losses(theta[None], points.variables)[1][0]
    for index in range(len(theta)):
        step = 1e-6 * np.eye(len(theta))[index]
        ends = [form.log_losses((theta + sign * step)[None], points.variables)[0][0] for sign in (1, -1)]
        np.testing.assert_allclose(analytic[:, index], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7)

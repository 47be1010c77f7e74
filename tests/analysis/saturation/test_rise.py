"""The rise of the last stretch above the best, against a plain loop; how often its onset's interval covers."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import STEPS, correlated

from lmsat_plugin.analysis.saturation.preparation import Cells
from lmsat_plugin.analysis.saturation.rise import Stretches, onset_of, rise_of
from lmsat_plugin.analysis.stats.bootstrap import Simulation


def test_rises_against_a_loop():
    rng = np.random.default_rng(11)
    values, variances = rng.standard_normal(18), rng.uniform(0.5, 2, 18)
    stretches = Stretches.of(18, 5)
    loop = max(
        (values[13:].mean() - values[i:j].mean())
        / (variances[13:].sum() / 25 + variances[i:j].sum() / (j - i) ** 2) ** 0.5
        for i in range(13)
        for j in range(i + 3, min(i + 6, 14))
    )
    assert stretches.rises(values[None], variances)[0][0] == pytest.approx(loop)


def test_the_onset_s_interval_covers():
    rng, covered = np.random.default_rng(4), []
    log_steps = np.log(STEPS)
    for _ in range(60):
        place = rng.integers(12, 22)
        values = 3 + 0.01 * correlated(rng, 1, 28, 0.2)[0]
        values[place:] += 0.025 + 0.02 * (log_steps[place:] - log_steps[place])
        cells = Cells.of(STEPS, values)
        values = cells.weights_CK @ values
        rise = rise_of(cells, STEPS, values, 50)
        onset = onset_of(log_steps[cells.last_C], values, rise, Simulation(400, rng))
        covered.append(cells.last_C[onset.low] < place <= cells.last_C[onset.high])
    assert np.mean(covered) >= 0.8

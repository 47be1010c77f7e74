"""The onset of a rise: how often its interval holds the true one."""

from __future__ import annotations

import numpy as np
from training_runs import STEPS, correlated

from lmsat_plugin.analysis.saturation.onset import onset_of
from lmsat_plugin.analysis.saturation.rise import rise_of
from lmsat_plugin.analysis.stats.bootstrap import Simulation


def test_the_onset_s_interval_covers():
    rng, covered = np.random.default_rng(4), []
    log_steps = np.log(STEPS)
    for _ in range(60):
        place = rng.integers(12, 22)
        values = 3 + 0.01 * correlated(rng, 1, 28, 0.2)[0]
        values[place:] += 0.025 + 0.02 * (log_steps[place:] - log_steps[place])
        rise = rise_of(log_steps, values, Simulation(200, rng))
        onset = onset_of(log_steps, values, rise, Simulation(400, rng))
        covered.append(onset.low < place <= onset.high)
    assert np.mean(covered) >= 0.8

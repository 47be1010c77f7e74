"""The geometry beside a loss: when it turns, against a series whose turns are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
from training_runs import results_of

from lmsat_plugin.analysis.saturation.geometry import geometry_of


def test_geometry_is_dated():
    steps = np.array([1000, 2000, 4000, 8000, 16000, 32000, 64000])
    losses = np.array([5, 4.5, 4.2, 4.0, 3.9, 4.0, 4.05])
    anisotropy = [0.2, 0.2, 0.25, 0.2, 0.3, 0.9, 0.99]
    entropy = [0.5, 0.4, 0.3, 0.25, 0.26, 1.5, 3.0]
    results = pd.concat(
        [
            results_of(anisotropy, steps, "lmsat_anisotropy", "anisotropy_last"),
            results_of(entropy, steps, "lmsat_head", "singular_entropy"),
        ]
    )
    found = geometry_of(results, steps, losses, 16000)
    assert found.anisotropy_jump_step == found.anisotropy_above_half_step == 32000
    lower = results.assign(value=results.value.where(results.metric != "anisotropy_last", results.value / 20))
    assert geometry_of(lower, steps, losses, 16000).anisotropy_jump_step is None, "it is noise"
    assert (found.entropy_turn_step, found.entropy_spike_step) == (8000, 32000)
    assert found.lags == {
        "anisotropy_jump": 16000,
        "anisotropy_above_half": 16000,
        "entropy_turn": -8000,
        "entropy_spike": 16000,
    }
    assert found.rates["singular_entropy"] > 0.8
    assert geometry_of(results[:3], steps, losses, 16000).rates is None

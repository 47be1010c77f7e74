"""P-values against the sample of documents or questions: how often they are small without any rise."""

from __future__ import annotations

import numpy as np

from lmsat_plugin.analysis.saturation.rise import Stretches
from lmsat_plugin.analysis.saturation.sampling import Documents, p_value_of_documents, p_value_of_stderrs
from lmsat_plugin.analysis.stats.bootstrap import Simulation


def test_p_values_of_samples_are_level():
    """Without any rise, p is below 0.1 in about a tenth of samples, the best of many corrected for."""
    rng = np.random.default_rng(8)
    stretches, below, simulation = Stretches.of(20), [], Simulation(300, rng)
    for _ in range(200):
        tokens = rng.integers(200, 2000, 60).astype(float)
        nats = (rng.normal(3, 0.5, 60) + rng.normal(0, 0.1, (20, 60))) * tokens
        below.append(
            (
                p_value_of_documents(Documents(nats_KM=nats, tokens_M=tokens), stretches, simulation) < 0.1,
                p_value_of_stderrs(rng.standard_normal(20), np.ones(20), stretches, simulation) < 0.1,
            )
        )
    rates = np.mean(below, axis=0)
    assert ((rates > 0.04) & (rates < 0.17)).all()

"""Figures of fitted laws: the points are those that were observed."""

from __future__ import annotations

import numpy as np
import pytest
from law_tables import simulated

from lmsat_plugin.analysis import fit
from lmsat_plugin.analysis.scaling_laws import LAWS
from lmsat_plugin.figures import plot


@pytest.mark.parametrize("law", LAWS)
def test_figures_show_what_was_observed(law):
    table, _ = simulated(law)
    found = fit(law, table, repetitions=30)
    losses, gaps = plot(found, predictions=found.predict(table[::2])).axes
    assert losses.get_ylabel() == f"{LAWS[law].target.replace('_', ' ')} (nats per token)"
    shown = [line for line in losses.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.sort(shown[0].get_ydata()), np.sort(table[LAWS[law].target]))
    assert len(gaps.lines) >= 3

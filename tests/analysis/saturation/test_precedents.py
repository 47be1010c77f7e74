"""How events of the geometry preceded onsets in other runs, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from training_runs import falling, table_of

from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.saturation import Geometry
from lmsat_plugin.analysis.saturation.precedents import precedents_of


@pytest.fixture(scope="module")
def verdict():
    (found,) = find_saturation(table_of(falling(np.random.default_rng(0))))
    return found


def run(verdict, onset, jump=None, spike=None):
    return replace(
        verdict,
        verdict="improving" if onset is None else "saturates",
        onset_at=onset,
        geometry=Geometry(anisotropy_jump_step=jump, entropy_spike_step=spike),
    )


def test_events_before_onsets_are_counted(verdict):
    here = run(verdict, None, jump=40_000)
    others = [
        run(verdict, 90_000, jump=50_000, spike=95_000),
        run(verdict, 80_000, jump=70_000),
        run(verdict, 60_000, jump=65_000),
        run(verdict, None, jump=20_000),
        run(verdict, None, spike=20_000),
    ]
    jump, above, turn, spike = precedents_of(here, [*others, replace(verdict, p_value=None)])
    assert (jump.here_at, jump.saturating, jump.before_onset, jump.median_lead) == (40_000, 3, 2, 25_000)
    assert (jump.not_saturating, jump.without_onset) == (2, 1)
    assert jump.sentence() == (
        "the last layer's anisotropy rose most steeply at step 40,000; in other runs before the onset in 2 of 3 that "
        "saturate (25,000 steps before it in the median), and in 1 of 2 that do not"
    )
    assert (spike.here_at, spike.before_onset, spike.median_lead, spike.without_onset) == (None, 0, None, 1)
    assert (above.before_onset, turn.before_onset) == (0, 0)


def test_fewer_than_three_runs_with_geometry_say_nothing(verdict):
    here, known = run(verdict, None, jump=1), run(verdict, 90_000, jump=50_000)
    without = [verdict, run(verdict, None)]
    assert precedents_of(here, [known, known, *without]) is None
    assert precedents_of(here, [known, known, known, *without]) is not None

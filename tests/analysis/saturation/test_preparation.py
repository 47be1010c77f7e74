"""What counts as one checkpoint, and what is set aside: on runs where that is known."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import STEPS, correlated

from lmsat_plugin.analysis.saturation.preparation import Cells, cell_starts, set_aside


@pytest.mark.parametrize("at", [STEPS, 1000 * 2 ** np.arange(12), np.geomspace(1000, 143_000, 40).astype(int)])
def test_even_checkpoints_stay_apart(at):
    assert cell_starts(at).tolist() == list(range(len(at)))


@pytest.mark.parametrize("dense", [3, 10, 40])
def test_a_dense_part_counts_by_its_share_of_training(dense):
    """However many checkpoints of the last 10,000 steps there are, they are as few cells."""
    coarse = np.arange(3000, 134_000, 10_000)
    tail = 133_000 + np.unique(np.linspace(0, 10_000, dense + 1)[1:].astype(int))
    starts = cell_starts(np.concatenate([coarse, tail]))
    assert starts[: len(coarse)].tolist() == list(range(len(coarse)))
    assert len(starts) - len(coarse) <= 2


def test_thousands_of_checkpoints_are_few_cells():
    assert len(cell_starts(np.arange(50, 5001))) <= 150


def test_outliers_are_set_aside_and_steps_are_not():
    values = np.sin(np.arange(20) / 3)
    spiked = values.copy()
    spiked[9] += 10
    assert np.flatnonzero(set_aside(spiked)).tolist() == [9]
    assert not set_aside(values + 10 * (np.arange(20) >= 12)).any()
    assert not set_aside(np.where(np.arange(20) % 4, 0.25, 0.5)).any(), "most values are equal"


def test_an_end_that_goes_on_is_no_outlier():
    rng = np.random.default_rng(5)
    for end in ([0.05, 0.12, 0.3, 0.65, 1.3], [-0.1, -0.2, -0.35, -0.5, -0.7]):
        values = 3 + 0.01 * rng.standard_normal(28)
        values[-5:] += end
        assert not set_aside(values)[-2:].any()
    values = 3 + 0.01 * rng.standard_normal(28)
    values[-1] += 0.5
    assert np.flatnonzero(set_aside(values)).tolist() == [27]


def test_cells_are_means_without_what_is_set_aside():
    at = np.concatenate([np.arange(1, 15) * 10_000, 140_000 + np.arange(1, 11) * 100])
    values = 3 + 0.01 * correlated(np.random.default_rng(2), 1, len(at), 0)[0]
    values[20] += 1
    cells = Cells.of(at, values)
    assert cells.set_aside == (20,)
    own = np.delete(np.arange(13, 24), 20 - 13)
    assert len(cells.place_C) == 14
    assert (cells.weights_CK @ values)[-1] == pytest.approx(values[own].mean())
    assert (cells.first_C[-1], cells.last_C[-1]) == (13, 23)
    values[20] -= 1
    values[4] += 1
    without = Cells.of(at, values)
    assert without.place_C.tolist() == [*range(4), *range(5, 14)]

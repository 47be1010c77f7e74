"""The figure of a leaderboard: one name for each model, none over another, and intervals of 90 %."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import norm
from score_tables import loss_rows, table_of

from lmsat_plugin.figures import plot, write_figure
from lmsat_plugin.ranking.leaderboard import make_leaderboard


@pytest.mark.parametrize("models", [1, 30])
def test_figure(models, tmp_path):
    rows = [row for index in range(models) for row in loss_rows(f"org/model-{index}", 3 + index / 50)]
    figure = plot(make_leaderboard(table_of(rows)))
    write_figure(figure, tmp_path / "f.png")
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(boxes) == models
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_intervals_are_of_90_per_cent():
    (axes,) = plot(make_leaderboard(table_of([*loss_rows("a", 3.0), *loss_rows("b", 3.5)]))).axes
    (bars,) = axes.containers[0][2]
    widths = [bar[1, 0] - bar[0, 0] for bar in bars.get_segments()]
    np.testing.assert_allclose(widths, 2 * norm.isf(0.05) * 0.01)
    assert "90 % intervals" in axes.get_xlabel()

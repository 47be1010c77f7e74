"""The figure of how reliable forecasts were, and the classes that it draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from lmsat_plugin.analysis.saturation.hindcasts import ForecastClass
from lmsat_plugin.figures.reliability import reliability_figure


def test_points_are_the_classes_with_wilson_s_intervals():
    groups = {"few": [ForecastClass(0.08, 0.25, 40), ForecastClass(0.9, 1.0, 3)], "one": [ForecastClass(0.5, 0.4, 10)]}
    figure = reliability_figure(groups)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["few", "one"]
    for axes, classes in zip(figure.axes, groups.values(), strict=True):
        points = axes.lines[1].get_xydata()
        assert points.tolist() == [[own.forecast, own.happened] for own in classes]
        bars = [segment[:, 1] for segment in axes.collections[0].get_segments()]
        for own, bar in zip(classes, bars, strict=True):
            test = binomtest(round(own.happened * own.hindcasts), own.hindcasts)
            assert np.sort(bar) == pytest.approx(test.proportion_ci(0.9, method="wilson"))
        assert [text.get_text() for text in axes.texts] == [str(own.hindcasts) for own in classes]

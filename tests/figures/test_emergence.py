"""The figure of scores against the loss: scores, chance, and the threshold with its interval."""

from __future__ import annotations

import numpy as np
import pytest
from emergence_scores import three_tasks
from matplotlib.colors import to_rgb

from lmsat_plugin.analysis import find_emergence
from lmsat_plugin.figures import plot
from lmsat_plugin.figures.emergence import emergence_figure
from lmsat_plugin.figures.style import looks_of


def test_figure_shows_scores_chance_and_threshold():
    table = three_tasks()
    found = find_emergence(table)
    figure = emergence_figure(found)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["hellaswag, acc", "mmlu, acc", "race, acc"]
    looks = looks_of(f"run-{index}" for index in range(5))
    for axes, one in zip(figure.axes, found, strict=True):
        assert axes.xaxis_inverted()
        lines = {line.get_label(): line for line in axes.get_lines()}
        for model, look in looks.items():
            rows = table[(table.model == model) & (table.task == one.task)]
            np.testing.assert_array_equal(lines[model].get_xdata(), rows["loss"])
            np.testing.assert_array_equal(lines[model].get_ydata(), rows["score"])
            assert to_rgb(lines[model].get_color()) == to_rgb(look["color"])
        assert set(lines["chance"].get_ydata()) == {0.25}
        assert ("threshold" in lines) == bool(one.emergent)
    mmlu = next(one for one in found if one.task == "mmlu")
    (axes,) = plot(mmlu).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines["threshold"].get_xdata()) == {mmlu.threshold}
    (span,) = axes.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((mmlu.low, mmlu.high))
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [*looks, "chance", "best curve", "threshold", "its 90 % interval"]

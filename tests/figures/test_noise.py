"""The figure of signal and noise: a point for each benchmark and size, and where models are told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from figure_checks import legend_of

from lmsat_plugin.analysis import find_noise
from lmsat_plugin.analysis.benchmark_noise import LEAST_SNR
from lmsat_plugin.figures import plot


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    rows = [
        {"model": f"{recipe}-{size}", "size": size, "step": step, "task": task, "metric": "acc", "n_samples": 2000}
        | {"score": 0.5 + gap * recipe + noise * rng.standard_normal()}
        for task, gap, noise in (("clear", 0.2, 0.004), ("noisy", 0.005, 0.02))
        for size in ("60M", "300M")
        for recipe in (1, 2)
        for step in range(1, 31)
    ]
    return find_noise(pd.DataFrame(rows))


def test_points_are_the_ratios_and_full_ones_worth_running(results):
    figure = plot(results)
    noise, questions = figure.axes
    assert [text.get_text() for text in noise.get_yticklabels()] == ["clear acc", "noisy acc"]
    for axes, ratios in ((noise, [one.snr for one in results]), (questions, [one.signal / one.mde for one in results])):
        *points, least = axes.lines
        assert [line.get_xdata()[0] for line in points] == pytest.approx(ratios)
        assert [line.get_markerfacecolor() != "none" for line in points] == [bool(one.worth_running) for one in results]
        assert least.get_xdata()[0] == (LEAST_SNR if axes is noise else 1)
    assert {bool(one.worth_running) for one in results} == {True, False}
    assert legend_of(noise) == ["60M", "300M"]


def test_of_many_benchmarks_the_clearest_are_drawn(results):
    many = [replace(results[0], task=f"t{index}", snr=float(index)) for index in range(60)]
    axes = plot(many).axes[0]
    assert "the first 40 of 60" in axes.get_title(loc="left")
    assert axes.get_yticklabels()[0].get_text() == "t59 acc"
    # Without any ratio there is an empty figure, and no error.
    assert not plot([replace(results[0], snr=None, mde=None)]).axes[0].lines

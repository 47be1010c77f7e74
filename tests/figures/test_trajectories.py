"""The figures of losses and geometry in training: relative depth, singular values, anisotropy as a colour."""

from __future__ import annotations

import numpy as np
import pandas as pd
from figure_checks import check_figure

from lmsat_plugin.figures.model_looks import ModelLooks
from lmsat_plugin.figures.trajectories import anisotropy_figure, loss_and_anisotropy_figure, singular_values_figure


def test_depth_is_relative():
    axes = anisotropy_figure(
        {"a": np.array([0.1, 0.5, 0.9]), "b": np.linspace(-0.05, 1, 13)}, ModelLooks({"a": 1, "b": 2})
    ).axes[0]
    assert list(axes.get_lines()[0].get_xdata()) == [0, 0.5, 1]
    assert len(axes.get_lines()[1].get_xdata()) == 13
    assert axes.get_ylim()[0] <= -0.05


def test_singular_values_in_units_of_the_largest():
    steps = np.array([1000.0, 2000.0, 4000.0])
    spectra = [np.array([4.0, 2.0, 1.0, 0.5]), np.array([2.0, 2.0, 1.0, 0.0]), np.array([8.0, 0.4, 0.4, 0.4])]
    figure = singular_values_figure({"m": (steps, spectra)})
    mesh = figure.axes[0].collections[0]
    least = 0.05
    np.testing.assert_allclose(mesh.get_array(), [[0.5, 1, 0.05], [0.25, 0.5, 0.05], [0.125, least, 0.05]])
    check_figure(figure)
    check_figure(singular_values_figure({f"model-{index}": (steps, spectra) for index in range(5)}))


def test_anisotropy_as_a_colour():
    table = pd.DataFrame(
        {"model": "m", "step": [1e3, 2e3, 3e3], "value": [3.0, 2.0, 2.5], "anisotropy": [0.1, 0.2, 0.9]}
    )
    figure = loss_and_anisotropy_figure(table, ModelLooks({"m": None}), "loss")
    [dots] = figure.axes[0].collections
    np.testing.assert_allclose(dots.get_array(), table.anisotropy)
    assert dots.get_clim() == (0, 1)
    check_figure(figure)

"""`plot` draws the result of any analysis, alone or in a list, and says which things have no figure."""

from __future__ import annotations

import importlib

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lmsat_plugin import figures
from lmsat_plugin.analysis import find_saturation, fit
from lmsat_plugin.errors import LmsatError


def losses_of(model: str) -> pd.DataFrame:
    steps = np.arange(1, 21) * 1000
    return pd.DataFrame({"model": model, "step": steps, "loss": 3 + 40 / steps**0.5})


def test_plot_stays_a_function_when_its_module_is_imported():
    importlib.import_module("lmsat_plugin.figures.drawing")
    assert callable(figures.plot)
    assert callable(figures.write_figure)
    with pytest.raises(AttributeError, match="no attribute 'plots'"):
        figures.plots  # noqa: B018


def test_results_alone_and_in_a_list():
    results = find_saturation(pd.concat([losses_of("a"), losses_of("b")]))
    one, both = figures.plot(results[0]), figures.plot(results)
    assert isinstance(one, Figure)
    titles = [[axes.get_title(loc="left").split(":")[0] for axes in figure.axes] for figure in (one, both)]
    assert titles == [["a"], ["a", "b"]]


def test_options_reach_the_figure():
    sizes = np.geomspace(1e7, 1e9, 6)
    table = pd.DataFrame({"model": range(6), "n_params_non_embedding": sizes, "loss": (9e13 / sizes) ** 0.076})
    law = fit("kaplan-n", table, repetitions=0)
    predictions = law.predict(table.assign(model="another"))
    legends = [
        [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        for figure in (figures.plot(law), figures.plot(law, predictions=predictions))
    ]
    assert [("another, not fitted" in legend) for legend in legends] == [False, True]


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (3, "there is no figure of int: give the result of an analysis"),
        ([], "there is no figure of a list of no result"),
        ([3, "x"], "there is no figure of a list of int, str: give results of one analysis"),
    ],
)
def test_what_has_no_figure(thing, said):
    with pytest.raises(LmsatError, match=said):
        figures.plot(thing)

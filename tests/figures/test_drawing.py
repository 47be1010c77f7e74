"""`plot` draws the result of any analysis, alone or in a list, and says which things have no figure."""

from __future__ import annotations

import importlib

import numpy as np
import pandas as pd
import pytest
from figure_checks import legend_of
from matplotlib.figure import Figure

from lmsat_plugin import figures
from lmsat_plugin.analysis import find_saturation, fit
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.style import GREY


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


def test_checkpoints_that_are_set_aside_are_grey():
    """A single checkpoint far from its neighbours has no say, and its point is drawn over in grey."""
    table = losses_of("m")
    table["loss"] += 0.002 * np.random.default_rng(0).standard_normal(20)
    table.loc[12, "loss"] += 1
    (result,) = find_saturation(table)
    assert result.set_aside == [13_000]
    (axes,) = figures.plot(result).axes
    grey = [line for line in axes.lines if line.get_color() == GREY and line.get_marker() == "o"]
    assert [tuple(map(list, line.get_data())) for line in grey] == [([13_000], [table.loss[12]])]
    assert "set aside" in legend_of(axes)
    (usual,) = figures.plot(find_saturation(table.drop(index=12))).axes
    assert "set aside" not in legend_of(usual)


def test_series_of_one_model_with_several_shots_have_names_of_their_own(tmp_path, capsys):
    steps = np.arange(1, 13) * 1000
    parts = [
        {"model": model, "step": steps, "task": "piqa", "metric": "acc", "value": 0.6 + 0.01 * np.sqrt(steps / 1000)}
        | {"higher_is_better": True, "num_fewshot": shots}
        for model, shots in (("a", 0), ("a", 5), ("b", 0))
    ]
    table = pd.concat(map(pd.DataFrame, parts))
    titles = [axes.get_title(loc="left") for axes in figures.plot(find_saturation(table)).axes]
    assert [title.split(": ")[0] for title in titles] == ["a, 0-shot", "a, 5-shot", "b"]
    table.to_csv(tmp_path / "scores.csv", index=False)
    assert main(["saturation", str(tmp_path / "scores.csv")]) == 0
    said = capsys.readouterr().out
    assert "a, 0-shot: improving" in said
    assert "a, 5-shot: improving" in said


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

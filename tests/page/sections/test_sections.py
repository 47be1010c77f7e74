"""On any results the figures of a report are the right ones, none is empty, and no texts overlap."""

from __future__ import annotations

import math

import pytest
from figure_checks import check_figure
from report_trees import STEPS, models_of, named, read_analyses
from result_trees import Made, add_arrays, write_result, write_tree

from lmsat_plugin.figures.model_looks import FEW
from lmsat_plugin.page.sections import all_figures

ALWAYS = {
    *("loss-by-step", "anisotropy-by-step", "singular-entropy", "loss-and-anisotropy", "loss-by-tokens"),
    *("overfitting", "allocation", "scores-by-step"),
}


def test_what_a_full_tree_shows(full_tree):
    names = [one.name for one in full_tree]
    assert len(set(names)) == len(names)
    more = {"anisotropy-by-depth", "singular-values", "critical-batch", "w-error", "power-laws"}
    more |= {"wikitext-and-anisotropy"}
    assert set(names) >= ALWAYS | more | {"scores-by-loss", "three-metrics"}
    assert [name for name in names if name.startswith("card-")] == [
        "card-suite-model-0",
        "card-org-a-b-x-with-a-name-that-goes-on-and-on-lr3e-4-bs512-seed0",
        "card-suite-model-1",
    ]
    for one in full_tree:
        assert one.alt.endswith(".")
        assert any(letter.isdigit() for letter in one.alt), one.name
        assert "nan" not in one.alt
        check_figure(one.draw())


@pytest.mark.parametrize("count", [1, 30])
def test_one_model_and_thirty(tmp_path, count):
    write_tree(tmp_path, models_of(count), (1, *range(1000, 9000, 1000)), tasks={"piqa": (0.5, 4.0, 0.01)})
    figures = {one.name: one for one in all_figures(read_analyses(tmp_path))}
    assert set(figures) >= ALWAYS
    assert sum(name.startswith("card-") for name in figures) == min(count, 24)
    drawn = [one for name, one in figures.items() if not name.startswith("card-")]
    for one in [*drawn, figures["card-suite-model-0"]]:
        check_figure(one.draw())
    bars = [axes for axes in figures["loss-by-step"].draw().axes if axes.get_ylabel() == "parameters"]
    assert len(bars) == (count > FEW)


def test_a_single_checkpoint_has_no_course(tmp_path):
    write_tree(tmp_path, [Made("m", 10**7)], [1000])
    add_arrays(tmp_path)
    figures = all_figures(read_analyses(tmp_path))
    assert {one.name for one in figures} == {"anisotropy-by-depth", "overfitting", "allocation"}
    for one in figures:
        check_figure(one.draw())


def test_missing_metrics_and_steps(tmp_path):
    for step in STEPS:
        write_result(tmp_path, "only-scores", step, {"piqa": {"acc": (0.6, 0.01)}})
        write_result(tmp_path, "no-size", step, {"lmsat_loss": {"loss": (9 - math.log(step), math.nan)}})
    write_result(tmp_path, "broken", 64, {"lmsat_loss": {"loss": math.nan}})
    figures = all_figures(read_analyses(tmp_path))
    assert {one.name for one in figures} == {
        *("card-no-size", "card-only-scores", "loss-by-step", "loss-by-tokens", "scores-by-step")
    }
    for one in figures:
        check_figure(one.draw())
    panels = named(figures, "loss-by-tokens").draw().axes
    assert [axes.get_xlabel() for axes in panels] == ["tokens"]


@pytest.mark.parametrize("count", [4, 12])
def test_a_model_looks_alike_in_all_figures(tmp_path, count):
    """Also where a smaller model lacks a measurement, whether models have colours of their own or of their sizes."""
    models = models_of(count)
    for model in models:
        for step in STEPS:
            values = {"lmsat_loss": {"loss": 3 + 1 / step}, "lmsat_anisotropy": {"anisotropy_last": 0.5}}
            if model is models[1]:
                del values["lmsat_anisotropy"]
            write_result(tmp_path, model.name, step, values, model.n_params)
    figures = all_figures(read_analyses(tmp_path))
    looks = {}
    for name in ("loss-by-step", "anisotropy-by-step"):
        lines = named(figures, name).draw().axes[0].get_lines()
        looks[name] = {line.get_label(): (line.get_color(), line.get_marker()) for line in lines}
    without = looks["anisotropy-by-step"]
    assert without.keys() == {model.name for model in models} - {models[1].name}
    assert without == {name: looks["loss-by-step"][name] for name in without}
    assert len(set(looks["loss-by-step"].values())) >= count

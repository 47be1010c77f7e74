"""Every metric with a step axis is in a figure, those of plugins' probes without a line of plotting code."""

from __future__ import annotations

from figure_checks import check_figure
from report_trees import named, read_analyses
from result_trees import write_result

from lmsat_plugin.page.sections import every_metric
from lmsat_plugin.page.sections.every_metric import PARTS

(figures_of,) = PARTS
STEPS = (100, 200, 400, 800)


def test_a_plugins_probe_has_a_panel_for_each_metric(tmp_path):
    for step in STEPS:
        values = {"mine": 1 / step, "other": step * 2.0, "constant": 3.0, "word_perplexity": 9e4 / step}
        write_result(tmp_path, "m", step, {"lmsat_mine": values, "lmsat_loss": {"loss": 9 - step / 1e3}}, 10**6)
    figures = list(figures_of(read_analyses(tmp_path)))
    # The loss has a figure of its own.
    assert [figure.name for figure in figures] == ["every-lmsat_mine"]
    (figure,) = figures
    assert set(figure.panels) == {("lmsat_mine", name) for name in ("mine", "other", "word_perplexity")}
    drawing = figure.draw()
    check_figure(drawing)
    by_title = {axes.get_title(loc="left"): axes for axes in drawing.axes}
    assert set(by_title) == {"mine", "other", "word_perplexity"}
    assert by_title["other"].lines[0].get_ydata().tolist() == [200, 400, 800, 1600]
    assert by_title["word_perplexity"].get_yscale() == "log"
    assert by_title["mine"].get_yscale() == "linear"
    assert "other 200 to 1.6e+03" in figure.alt


def test_many_metrics_are_on_several_figures_and_what_has_no_room_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(every_metric, "_MOST", 3)
    for step in STEPS:
        values = {f"metric_{index}": index + 1 / step for index in range(20)}
        write_result(tmp_path, "m", step, {"lmsat_mine": values, "other_task": {"score": 1 / step}})
    analyses = read_analyses(tmp_path)
    figures = list(figures_of(analyses))
    assert [len(figure.panels) for figure in figures] == [9, 9, 2]
    assert {metric for figure in figures for _, metric in figure.panels} == {f"metric_{index}" for index in range(20)}
    assert named(figures, "every-lmsat_mine-2").title.endswith("(2 of 3)")
    assert "there is room for 3 figures" in analyses.missing["every metric"]

"""The cards of a report: one axis of steps, the onset, the downstream average, and their order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from figure_checks import check_figure
from report_trees import read_analyses
from result_trees import Made, write_result, write_tree

from lmsat_plugin.page.report import write_report
from lmsat_plugin.page.sections import all_figures, cards


def test_a_card_has_one_axis_of_time_and_its_onset(tmp_path):
    steps = range(500, 15500, 500)
    write_tree(tmp_path, [Made("m", 10**8, 7000)], steps)
    analyses = read_analyses(tmp_path)
    [found] = analyses.saturation
    assert found.verdict == "saturates"
    [card, *_] = all_figures(analyses)
    figure = card.draw()
    check_figure(figure)
    assert len(figure.axes) == 5, "the last one is the time line of events"
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for axes in figure.axes:
        drawn = [list(line.get_xdata()) for line in axes.get_lines()]
        assert [found.onset_step] * 2 in drawn
        assert [found.best_step] * 2 in drawn
        spans = [patch.get_bbox() for patch in axes.patches]
        assert [(box.x0, box.x1) for box in spans] == [(found.onset_low, found.onset_high)]
    (run,) = analyses.events.runs
    assert run.events
    drawn = [list(line.get_xdata()) for line in figure.axes[-1].get_lines()]
    assert all([event.low, event.high] in drawn and [event.at] in drawn for event in run.events)
    first = run.events[0]
    assert f"Events: {first.metric} {first.kind} at {first.at}" in card.alt
    assert f"best loss {found.best:.4g} at step {found.best_step}" in card.alt
    assert card.title == "m: saturates"


def test_a_verdict_needs_its_losses(tmp_path):
    write_result(tmp_path, "m", 100, {"lmsat_loss": {"loss": 3.0}}, 10**7)
    for step in (100, 200):
        write_result(tmp_path, "m", step, {"lmsat_anisotropy": {"anisotropy_last": 0.5}}, 10**7)
    analyses = read_analyses(tmp_path)
    assert [one.model for one in analyses.saturation] == ["m"]
    [card, *_] = all_figures(analyses)
    assert card.title == "m"
    [axes] = card.draw().axes
    assert len(axes.get_lines()) == 1


def test_the_downstream_average_of_a_card(tmp_path):
    for step in (200, 1000):
        scores = {"piqa": {"acc": (0.5 + step / 5000, 0.01)}, "arc_easy": {"acc": (0.25, 0.03)}}
        write_result(tmp_path, "m", step, {**scores, "mine": {"acc": (0.9, 0.01)}}, 10**7)
    [card, *_] = all_figures(read_analyses(tmp_path))
    [axes] = card.draw().axes
    assert axes.get_ylabel() == "score above chance\n(mean of 2 tasks)"
    # piqa: (0.04 and 0.2) / 0.5, arc_easy: 0.
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.04, 0.2])
    assert "from 0.04 to 0.2" in card.alt
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    error = math.hypot(0.01 / 0.5, 0.03 / 0.75) / 2
    assert band.max() == pytest.approx(0.2 + error)


def test_cards_of_models_that_saturate_come_first(tmp_path):
    write_tree(tmp_path, [Made("a", 10**7), Made("b", 10**8, 4000), Made("c", 10**9)])
    cards = [one.name for one in all_figures(read_analyses(tmp_path)) if one.name.startswith("card-")]
    assert cards == ["card-b", "card-a", "card-c"]


def test_a_page_has_some_cards_and_says_of_how_many(tmp_path, monkeypatch):
    for size in range(3):
        for step in (1, 2):
            write_result(tmp_path / "tree", f"m{size}", step, {"lmsat_loss": {"loss": 3.0 - step / 10}}, 10**6)
    monkeypatch.setattr(cards, "_MOST", 2)
    page = write_report(read_analyses(tmp_path / "tree"), tmp_path / "report").read_text("utf-8")
    written = {path.name for path in (tmp_path / "report" / "figures").glob("card-*.svg")}
    assert written == {"card-m0.svg", "card-m1.svg"}
    assert "2 of 3 models have one" in page

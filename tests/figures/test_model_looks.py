"""How models are told apart: by colours and markers, by a colour bar, and alike in all figures of a page."""

from __future__ import annotations

import itertools
import math

import pandas as pd
import pytest
from figure_checks import check_figure

from lmsat_plugin.figures.model_looks import FEW, ModelLooks, size_words, spread
from lmsat_plugin.figures.style import looks_of
from lmsat_plugin.figures.trajectories import by_step_figure, loss_and_anisotropy_figure, scores_figure


@pytest.mark.parametrize("known", ["sizes", "one size", "no sizes"])
def test_many_models_are_told_by_a_colour_bar(known):
    count = 40
    sizes = {
        f"an-organisation/a-long-name-of-a-model-{index:02d}": {"sizes": 1e7 * 1.2**index, "one size": 1e8}.get(known)
        for index in range(count)
    }
    rows = [
        {"model": name, "step": step, "value": 9 - index / 9 - math.log(step) / 4, "stderr": 0.01, "anisotropy": 0.5}
        for index, name in enumerate(sizes)
        for step in (1e3, 2e3)
    ]
    table = pd.DataFrame(rows)
    models = ModelLooks(sizes)
    assert len({look["color"] for look in models.looks.values()}) == count
    for figure in (
        by_step_figure(table, models, "loss", best={next(iter(sizes)): (1e3, 8.0)}, log=True),
        loss_and_anisotropy_figure(table, models, "loss"),
        scores_figure({("a", "acc"): table, ("b", "acc"): table}, {"a": 0.5, "b": None}, models),
    ):
        check_figure(figure)
        assert figure.get_size_inches()[1] < 4
    few = dict(itertools.islice(sizes.items(), FEW))
    figure = by_step_figure(table[table.model.isin(few)], ModelLooks(few), "loss")
    assert len(figure.axes) == 1
    assert len(figure.axes[0].get_legend().get_texts()) == FEW + 1
    check_figure(figure)


def test_words():
    assert [size_words(n) for n in (999, 14e6, 999.9e6, 1.4e9, 1.2e10)] == ["999", "14M", "1B", "1.4B", "12B"]
    assert spread(dict.fromkeys("abcdefg"), 3) == ["a", "d", "g"]
    assert spread(dict.fromkeys("ab"), 3) == ["a", "b"]


def test_models_look_alike_in_all_figures_while_they_are_few():
    models = [f"m{index}" for index in range(8)]
    everywhere = looks_of(models)
    assert looks_of(models[3:5], models) == {name: everywhere[name] for name in models[3:5]}
    assert looks_of(["other"], models[:2])["other"] not in looks_of(models[:2]).values()
    assert looks_of(models[3:5], [*models, "one more"]) == looks_of(models[3:5])

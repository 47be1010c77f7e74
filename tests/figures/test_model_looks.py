"""How models are told apart: by names or by sizes, on pages, and alike in all figures of a page."""

from __future__ import annotations

import itertools
import math

import pandas as pd
import pytest
from figure_checks import check_figure

from lmsat_plugin.analysis.checkpoint_values import SizeInName, spread
from lmsat_plugin.figures.model_looks import FEW, MOST_NAMES, ModelLooks, model_pages, screen_looks, size_words
from lmsat_plugin.figures.style import PALETTE, looks_of
from lmsat_plugin.figures.trajectories import by_step_figure, loss_and_anisotropy_figure, scores_figure


@pytest.mark.parametrize("known", ["sizes", "one size", "no sizes"])
def test_sizes_have_a_scale_of_colours_and_names_have_none(known):
    count = 16
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
    assert models.by_size == (known == "sizes")
    lines = [models.line(name, 2) for name in sizes]
    assert len({(line["color"], line["linestyle"]) for line in lines}) == count
    assert len({line["color"] for line in lines}) == (count if models.by_size else len(PALETTE))
    for figure, panels in (
        (by_step_figure(table, models, "loss", best={next(iter(sizes)): (1e3, 8.0)}, log=True), 1),
        (scores_figure({("a", "acc"): table, ("b", "acc"): table}, {"a": 0.5, "b": None}, models), 2),
    ):
        check_figure(figure)
        assert len(figure.axes) == panels + models.by_size
        named = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
        assert sum("a-long-name" in text for text in named) == (0 if models.by_size else count)
    check_figure(loss_and_anisotropy_figure(table, models, "loss"))
    few = dict(itertools.islice(sizes.items(), FEW))
    figure = by_step_figure(table[table.model.isin(few)], ModelLooks(few), "loss")
    assert len(figure.axes) == 1
    assert len(figure.axes[0].get_legend().get_texts()) == FEW + 1
    check_figure(figure)


def test_a_size_that_a_name_states_is_marked():
    sizes = {f"m{index}": SizeInName(1e7 * 2**index) for index in range(FEW + 1)}
    table = pd.DataFrame([{"model": name, "step": at, "value": 2.0, "stderr": 0.1} for name in sizes for at in (1, 2)])
    assert "names" in by_step_figure(table, ModelLooks(sizes), "loss").axes[-1].get_ylabel()
    assert size_words(sizes["m1"]) == "~20M"


def test_pages_keep_families_together():
    """A figure of names holds a dozen models, those whose names differ in their sizes alone beside each other."""
    sizes = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
    families = ("pythia-{}", "pythia-{}-deduped", "opt-{}", "bloom-{}")
    names = [family.format(size) for size in sizes for family in families]
    pages = model_pages(dict.fromkeys(names, 1e8))
    assert sorted(name for page in pages for name in page) == sorted(names)
    assert max(map(len, pages)) <= MOST_NAMES
    assert all(sum(family.format(size) in page for size in sizes) in (0, 8) for page in pages for family in families)
    assert pages[0][:2] == ["bloom-70m", "bloom-160m"]
    assert model_pages(dict(zip(names, range(1, len(names) + 1), strict=True))) == [names]
    assert [len(page) for page in model_pages(dict.fromkeys(map("m{}x".format, range(30))))] == [12, 12, 6]


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


def test_screens_have_the_colours_of_paper_and_light_ones_on_dark():
    def lightness(colour: str) -> int:
        return sum(int(colour[place : place + 2], 16) for place in (1, 3, 5))

    named = screen_looks({f"m{index}": None for index in range(10)})
    assert [light for light, *_ in named.values()] == [*PALETTE, *PALETTE[:2]]
    # Where colours repeat, line styles tell models apart.
    assert len(set(named.values())) == 10
    sized = screen_looks({f"m{index}": 10.0**index for index in range(12)})
    assert [dashes for *_, dashes in sized.values()] == [0] * 12
    for light, dark, _ in (*named.values(), *sized.values()):
        assert lightness(light) < 620
        assert lightness(dark) > 250
    assert len({dark for _, dark, _ in sized.values()}) == 12

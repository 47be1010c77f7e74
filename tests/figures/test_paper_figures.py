"""Figures of a report: what their lines hold, and that on any results none is empty or has texts that overlap."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from places import PYTHIA_LOSSES
from result_trees import Made, add_arrays, write_result, write_tree

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.checkpoint_values import (
    by_step,
    evenly,
    last_of,
    shown_scores,
    sizes_of,
    values_of,
)
from lmsat_plugin.analysis.scaling_laws import kaplan
from lmsat_plugin.analysis.scaling_laws.allocation import HOFFMANN
from lmsat_plugin.figures.model_looks import FEW, ModelLooks, size_words, spread
from lmsat_plugin.figures.scaling import (
    allocation_figure,
    critical_batch_figure,
    overfitting_figure,
    w_error_figure,
)
from lmsat_plugin.figures.scores import scores_figure
from lmsat_plugin.figures.style import looks_of
from lmsat_plugin.figures.trajectories import (
    anisotropy_figure,
    by_step_figure,
    loss_and_anisotropy_figure,
    singular_values_figure,
)
from lmsat_plugin.page.figures import ReportFigure, figures_of

PYTHIA = PYTHIA_LOSSES
STEPS = (1, 2, 64, 256, *range(1000, 11000, 1000))
LONG = 'org/"a" <b>$x$_with-a-name-that-goes-on-and-on-lr3e-4-bs512-seed0'
SAID = {
    *("loss-by-step", "anisotropy-by-step", "singular-entropy", "loss-and-anisotropy", "loss-by-tokens"),
    *("overfitting", "allocation", "scores-by-step"),
}


def models_of(count: int) -> list[Made]:
    """Return models of 14M parameters to 12B, the smallest of which saturates."""
    sizes = np.geomspace(14e6, 12e9, count)
    return [
        Made(f"suite/model-{index}", int(size), None if index else 4000) for index, size in enumerate(sizes)
    ]


def collect(root, **how) -> Analyses:
    return Analyses.of(root, tokens_per_step=2_000_000, **how)


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> list[ReportFigure]:
    """Three models with all that is measured."""
    root = tmp_path_factory.mktemp("several")
    write_tree(root, [*models_of(2), Made(LONG, 10**8)], STEPS)
    write_result(root, LONG, 64, {"lmsat_gradient_noise": {"critical_batch_tokens": (3e5, 1e4)}}, 10**8)
    write_result(
        root, LONG, 64, {"lmsat_ngram": {"w_error_64": 0.6, "w_error_128": 0.3, "contexts": 9}}, 10**8
    )
    for step in STEPS:
        perplexity = {"wikitext": {"word_perplexity": 30 + 2e4 / step}}
        write_result(root, LONG, step, perplexity, 10**8)
    add_arrays(root)
    return figures_of(collect(root))


def named(figures: list[ReportFigure], name: str):
    return next(one for one in figures if one.name == name)


def texts_of(figure) -> dict[str, Bbox]:
    """Return where each text that is drawn stands."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    texts = list(figure.texts)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    for legend in legends:
        texts += legend.get_texts()
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes._left_title, *axes.texts]
        for axis, drawn in ((axes.xaxis, axes.xaxis), (axes.yaxis, axes.yaxis)):
            low, high = sorted(drawn.get_view_interval())
            for tick in axis.get_major_ticks():
                texts += [
                    label
                    for label in (tick.label1, tick.label2)
                    if label.get_visible() and low <= tick.get_loc() <= high
                ]
    boxes = {
        f"{number} {text.get_text()}": text.get_window_extent(renderer)
        for number, text in enumerate(texts)
        if text.get_text() and text.get_visible()
    }
    return boxes


def check(figure) -> None:
    """Assert that a figure has data in each panel, and texts that neither overlap nor are cut off."""
    boxes = texts_of(figure)
    for label, box in boxes.items():
        assert figure.bbox.x0 - 1 <= box.x0, label
        assert figure.bbox.y0 - 1 <= box.y0, label
        assert box.x1 <= figure.bbox.x1 + 1, label
        assert box.y1 <= figure.bbox.y1 + 1, label
    for (one, first), (other, second) in itertools.combinations(boxes.items(), 2):
        common = Bbox.intersection(first, second)
        assert common is None or min(common.width, common.height) < 2, (one, other)
    for axes in figure.axes:
        assert axes.lines or axes.collections, "an empty panel"
        assert axes.get_window_extent().height > 0.5 * figure.dpi
    width, height = figure.get_size_inches()
    assert width < 14
    assert height < 16


def test_what_a_full_tree_shows(several):
    names = [one.name for one in several]
    assert len(set(names)) == len(names)
    more = {"anisotropy-by-depth", "singular-values", "critical-batch", "w-error", "power-laws"}
    more |= {"wikitext-and-anisotropy"}
    assert set(names) >= SAID | more | {"scores-by-loss", "three-metrics"}
    assert [name for name in names if name.startswith("card-")] == [
        "card-suite-model-0",
        "card-org-a-b-x-with-a-name-that-goes-on-and-on-lr3e-4-bs512-seed0",
        "card-suite-model-1",
    ]
    for one in several:
        assert one.alt.endswith(".")
        assert any(letter.isdigit() for letter in one.alt), one.name
        assert "nan" not in one.alt
        check(one.draw())


@pytest.mark.parametrize("count", [1, 30])
def test_one_model_and_thirty(tmp_path, count):
    write_tree(tmp_path, models_of(count), (1, *range(1000, 9000, 1000)), tasks={"piqa": (0.5, 4.0, 0.01)})
    figures = {one.name: one for one in figures_of(collect(tmp_path))}
    assert set(figures) >= SAID
    assert sum(name.startswith("card-") for name in figures) == count
    drawn = [one for name, one in figures.items() if not name.startswith("card-")]
    for one in [*drawn, figures["card-suite-model-0"]]:
        check(one.draw())
    bars = [axes for axes in figures["loss-by-step"].draw().axes if axes.get_ylabel() == "parameters"]
    assert len(bars) == (count > FEW)


def test_a_single_checkpoint_has_no_course(tmp_path):
    write_tree(tmp_path, [Made("m", 10**7)], [1000])
    add_arrays(tmp_path)
    figures = figures_of(collect(tmp_path))
    assert {one.name for one in figures} == {"anisotropy-by-depth", "overfitting", "allocation"}
    for one in figures:
        check(one.draw())


def test_missing_metrics_and_steps(tmp_path):
    for step in STEPS:
        write_result(tmp_path, "only-scores", step, {"piqa": {"acc": (0.6, 0.01)}})
        write_result(tmp_path, "no-size", step, {"lmsat_loss": {"loss": (9 - math.log(step), math.nan)}})
    write_result(tmp_path, "broken", 64, {"lmsat_loss": {"loss": math.nan}})
    figures = figures_of(collect(tmp_path))
    assert {one.name for one in figures} == {
        *("card-no-size", "card-only-scores", "loss-by-step", "loss-by-tokens", "scores-by-step")
    }
    for one in figures:
        check(one.draw())
    panels = named(figures, "loss-by-tokens").draw().axes
    assert [axes.get_xlabel() for axes in panels] == ["tokens"]


def test_two_corpora_stand_on_two_axes(tmp_path):
    models = models_of(6)
    write_tree(tmp_path, models, STEPS, tasks={})
    for model in models:
        for step in STEPS:
            loss = 2.0 + 10 / (step + 1) ** 0.2 + 1e7 / model.n_params
            write_result(tmp_path, model.name, step, {"lmsat_loss": {"loss": loss}}, model.n_params, "other")
    collected = collect(tmp_path, corpus="held-out")
    losses = values_of(collected.table, "lmsat_loss", "loss")
    assert len(losses) == len(models) * len(STEPS)
    transfer = named(figures_of(collected), "transfer")
    assert "other" in transfer.title
    found = collected.transfer["other"]
    ours, theirs = found.points.values["loss"], found.points.losses_P
    assert f"{np.polyfit(ours, theirs, 1)[0]:.1f}" == f"{found.params['slope'].value:.1f}"
    assert f"{found.derived['offset_at_slope_1'].value:.3g} nats" in transfer.alt
    check(transfer.draw())
    assert (
        not collect(tmp_path, corpus="other").transfer
        or "transfer" not in collect(tmp_path, corpus="other").missing
    )


def test_lines_hold_the_values(several):
    axes = named(several, "loss-by-step").draw().axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    x, y = lines["suite/model-1"].get_data()
    assert list(x) == [step for step in STEPS if step >= 100]
    tokens = 2e6 * np.asarray(x)
    law = 1.8 + 480 / 12e9**0.35 + 2000 / (tokens + 1e6) ** 0.37
    np.testing.assert_allclose(y, law, atol=0.02)
    stars = [line for line in axes.get_lines() if line.get_marker() == "*"]
    best = {(line.get_xdata()[0], line.get_ydata()[0]) for line in stars}
    assert (x[np.argmin(y)], min(y)) in best
    assert len(best) == 3


def test_a_card_has_one_axis_of_time_and_its_onset(tmp_path):
    steps = range(500, 15500, 500)
    write_tree(tmp_path, [Made("m", 10**8, 7000)], steps)
    collected = collect(tmp_path)
    [found] = collected.saturation
    assert found.verdict == "saturates"
    [card, *_] = figures_of(collected)
    figure = card.draw()
    check(figure)
    assert len(figure.axes) == 4
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for axes in figure.axes:
        drawn = [list(line.get_xdata()) for line in axes.get_lines()]
        assert [found.onset_step] * 2 in drawn
        assert [found.best_step] * 2 in drawn
        spans = [patch.get_bbox() for patch in axes.patches]
        assert [(box.x0, box.x1) for box in spans] == [(found.onset_low, found.onset_high)]
    assert f"best loss {found.best:.4g} at step {found.best_step}" in card.alt
    assert card.title == "m: saturates"


def test_a_verdict_needs_its_losses(tmp_path):
    write_result(tmp_path, "m", 100, {"lmsat_loss": {"loss": 3.0}}, 10**7)
    for step in (100, 200):
        write_result(tmp_path, "m", step, {"lmsat_anisotropy": {"anisotropy_last": 0.5}}, 10**7)
    collected = collect(tmp_path)
    assert [one.model for one in collected.saturation] == ["m"]
    [card, *_] = figures_of(collected)
    assert card.title == "m"
    [axes] = card.draw().axes
    assert len(axes.get_lines()) == 1


def test_the_downstream_average_of_a_card(tmp_path):
    for step in (200, 1000):
        scores = {"piqa": {"acc": (0.5 + step / 5000, 0.01)}, "arc_easy": {"acc": (0.25, 0.03)}}
        write_result(tmp_path, "m", step, {**scores, "mine": {"acc": (0.9, 0.01)}}, 10**7)
    [card, *_] = figures_of(collect(tmp_path))
    [axes] = card.draw().axes
    assert axes.get_ylabel() == "score above chance\n(mean of 2 tasks)"
    # piqa: (0.04 and 0.2) / 0.5, arc_easy: 0.
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.04, 0.2])
    assert "from 0.04 to 0.2" in card.alt
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    error = math.hypot(0.01 / 0.5, 0.03 / 0.75) / 2
    assert band.max() == pytest.approx(0.2 + error)


def test_the_extrapolation_is_that_of_the_law(tmp_path):
    for index, model in enumerate(models_of(9)):
        write_tree(tmp_path, [model], range(1000, 4000 * (1 + (index + 2) % 3), 500), tasks={})
    collected = collect(tmp_path)
    figures = figures_of(collected)
    axes = named(figures, "extrapolation").draw().axes[0]
    law = collected.law
    dashed = next(line for line in axes.get_lines() if line.get_linestyle() == "--")
    finals = collected.final_losses().astype({"n_params": float, "tokens": float})
    params = {name: one.value for name, one in law.params.items()}
    predicted = (
        params["E"]
        + params["A"] / finals.n_params ** params["alpha"]
        + params["B"] / finals.tokens ** params["beta"]
    )
    order = np.argsort(6 * finals.n_params * finals.tokens)
    np.testing.assert_allclose(dashed.get_ydata(), predicted.to_numpy()[order], rtol=1e-6)
    small = finals[finals.model == "suite/model-0"].index[0]
    gap = 100 * (finals.loss[small] / predicted[small] - 1)
    assert gap > 3
    assert f"suite/model-0 {gap:+.2g} %" in named(figures, "extrapolation").alt
    for name in ("extrapolation", "law", "power-laws"):
        check(named(figures, name).draw())


@pytest.mark.skipif(not PYTHIA.exists(), reason="needs the losses digitised from the paper")
def test_gaps_of_the_paper(tmp_path):
    for row in pd.read_csv(PYTHIA).to_dict("records"):
        losses = {"lmsat_loss": {"loss": (row["loss"], 0.015)}}
        write_result(tmp_path, row["model"], row["step"], losses, row["n_params"], "pile")
    collected = Analyses.of(tmp_path, tokens_per_step=2_097_152)
    given = {name for name, one in collected.law.params.items() if one.given}
    assert given == {"E", "B", "beta"}
    assert collected.law.points.runs == 6
    found = named(figures_of(collected), "extrapolation")
    gaps = {name: float(gap) for name, gap in re.findall(r"(pythia-\w+) ([+-][\d.]+) %", found.alt)}
    # Godey et al. 2024, Fig. 1b, digitised, with A = 119.09 and alpha = 0.246.
    for name, gap in {"14m": 8.48, "31m": 9.39, "70m": 8.77, "160m": 4.88, "410m": -0.5, "1b": 0.26}.items():
        assert gaps[f"pythia-{name}"] == pytest.approx(gap, abs=1.0), name
    check(found.draw())


def test_published_laws():
    sizes = {"m": 1e8}
    row = {
        "model": ["m"],
        "n_params": [1e8],
        "n_params_non_embedding": [1e8],
        "tokens": [2e9],
        "flops": [1.2e18],
    }
    axes = allocation_figure(pd.DataFrame(row), sizes).axes[0]
    flops, n_opt = axes.get_lines()[1].get_data()
    # The least loss of Hoffmann's law at 6ND = C, by brute force.
    tried = np.geomspace(n_opt[20] / 3, n_opt[20] * 3, 20001)
    losses = HOFFMANN.loss(tried, flops[20] / (6 * tried))
    assert n_opt[20] == pytest.approx(tried[np.argmin(losses)], rel=1e-3)
    axes = overfitting_figure(pd.DataFrame(row), sizes).axes[0]
    n, tokens = axes.get_lines()[1].get_data()
    np.testing.assert_allclose(kaplan.overfitting(n, tokens), 0.02, rtol=1e-9)
    rows = pd.DataFrame({"model": "m", "loss": [2.5, 3.0], "value": [1e6, 5e5], "stderr": [1e5, 2e6]})
    axes = critical_batch_figure(rows, sizes).axes[0]
    law = axes.get_lines()[-1]
    assert np.interp(2.5, *law.get_data()) == pytest.approx(2.55e6, rel=0.01)
    assert axes.get_ylim()[0] > 0


def test_depth_is_relative():
    axes = anisotropy_figure(
        {"a": np.array([0.1, 0.5, 0.9]), "b": np.linspace(-0.05, 1, 13)}, {"a": 1, "b": 2}
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
    check(figure)
    check(singular_values_figure({f"model-{index}": (steps, spectra) for index in range(5)}))


def test_anisotropy_as_a_colour():
    table = pd.DataFrame(
        {"model": "m", "step": [1e3, 2e3, 3e3], "value": [3.0, 2.0, 2.5], "anisotropy": [0.1, 0.2, 0.9]}
    )
    figure = loss_and_anisotropy_figure(table, {"m": None}, "loss")
    [dots] = figure.axes[0].collections
    np.testing.assert_allclose(dots.get_array(), table.anisotropy)
    assert dots.get_clim() == (0, 1)
    check(figure)


@pytest.mark.parametrize("known", ["sizes", "one size", "no sizes"])
def test_many_models_are_told_by_a_colour_bar(known):
    count = 40
    sizes = {
        f"an-organisation/a-long-name-of-a-model-{index:02d}": {
            "sizes": 1e7 * 1.2**index,
            "one size": 1e8,
        }.get(known)
        for index in range(count)
    }
    rows = [
        {
            "model": name,
            "step": step,
            "value": 9 - index / 9 - math.log(step) / 4,
            "stderr": 0.01,
            "anisotropy": 0.5,
        }
        for index, name in enumerate(sizes)
        for step in (1e3, 2e3)
    ]
    table = pd.DataFrame(rows)
    assert len({look["color"] for look in ModelLooks(sizes).looks.values()}) == count
    for figure in (
        by_step_figure(table, sizes, "loss", {next(iter(sizes)): (1e3, 8.0)}, log=True),
        loss_and_anisotropy_figure(table, sizes, "loss"),
        scores_figure({("a", "acc"): table, ("b", "acc"): table}, {"a": 0.5, "b": None}, sizes),
    ):
        check(figure)
        assert figure.get_size_inches()[1] < 4
    few = dict(itertools.islice(sizes.items(), FEW))
    figure = by_step_figure(table[table.model.isin(few)], few, "loss")
    assert len(figure.axes) == 1
    assert len(figure.axes[0].get_legend().get_texts()) == FEW + 1
    check(figure)


def test_values_of_checkpoints(tmp_path):
    write_tree(tmp_path, [Made("b", 10**7), Made("a", 10**8)], (0, 1, 64, 1000, 2000))
    write_result(
        tmp_path, "c", 64, {"piqa": {"acc_norm": 0.5}, "mmlu_law": {"acc": 0.3}, "open": {"em": 0.1}}
    )
    table = collect(tmp_path).table
    assert list(sizes_of(table).items()) == [("b", 1e7), ("a", 1e8), ("c", None)]
    assert shown_scores(table) == [("arc_easy", "acc"), ("open", "em"), ("piqa", "acc")]
    rows = values_of(table, "lmsat_loss", "loss")
    assert len(rows) == 10
    assert set(by_step(rows).step) == {64, 1000, 2000}
    assert list(last_of(rows).step) == [2000, 2000]
    again = pd.concat([table, table.assign(num_fewshot=5).head(3)])
    assert len(values_of(again, "arc_easy", "acc")) == 10
    assert by_step(rows[rows.step == 2000]).empty


def test_words():
    assert [size_words(n) for n in (999, 14e6, 999.9e6, 1.4e9, 1.2e10)] == ["999", "14M", "1B", "1.4B", "12B"]
    assert spread(dict.fromkeys("abcdefg"), 3) == ["a", "d", "g"]
    assert spread(dict.fromkeys("ab"), 3) == ["a", "b"]


def test_evenly_spread_checkpoints_of_each_model():
    rows = pd.DataFrame({"model": ["a"] * 5 + ["b"] * 2, "step": [30, None, 0, 20, 10, 7, 3]})

    def steps(most: int) -> list:
        chosen = evenly(rows, most)
        return [chosen.step[chosen.model == model].fillna(-1).tolist() for model in "ab"]

    assert steps(1) == [[-1], [7]]
    assert steps(2) == [[0, -1], [3, 7]]
    assert steps(3) == [[0, 20, -1], [3, 7]]
    assert steps(9) == [[0, 10, 20, 30, -1], [3, 7]]
    assert evenly(rows[:0], 3).empty


def test_models_look_alike_in_all_figures_while_they_are_few():
    models = [f"m{index}" for index in range(8)]
    everywhere = looks_of(models)
    assert looks_of(models[3:5], models) == {name: everywhere[name] for name in models[3:5]}
    assert looks_of(["other"], models[:2])["other"] not in looks_of(models[:2]).values()
    assert looks_of(models[3:5], [*models, "one more"]) == looks_of(models[3:5])


def test_w_errors_of_all_dimensions_make_the_line():
    table = pd.DataFrame({"dimension": [64.0, 128.0], "value": [0.5, 0.25]})
    errors_D = np.linspace(1, 0, 200)
    [line] = [
        line
        for line in w_error_figure(table, {"m": 32}, errors_D).axes[0].lines
        if line.get_label() == "the corpus' n-grams"
    ]
    dimensions = line.get_xdata()
    assert (dimensions[0], dimensions[-1]) == (1, 200)
    np.testing.assert_array_equal(line.get_ydata(), errors_D[dimensions - 1])


def test_no_law_is_fitted_where_the_largest_model_saturates(tmp_path):
    write_tree(tmp_path, [Made("a", 10**7), Made("b", 10**8, 4000)])
    collected = collect(tmp_path)
    assert collected.law is None
    assert "larger than all that saturate, and there is none" in collected.missing["law"]


def test_cards_of_models_that_saturate_come_first(tmp_path):
    write_tree(tmp_path, [Made("a", 10**7), Made("b", 10**8, 4000), Made("c", 10**9)])
    cards = [one.name for one in figures_of(collect(tmp_path)) if one.name.startswith("card-")]
    assert cards == ["card-b", "card-a", "card-c"]

"""The figure of loss and accuracy by rank: the data that its lines hold, its legends, and legible labels."""

from __future__ import annotations

import itertools
import math

import pandas as pd
import pytest
from figure_checks import check_texts, legend_of, lines_of, titles_of
from rank_tables import NO_ACCURACIES, NO_LOSSES, RANKS, TASKS, accuracies_of, losses_of

from lmsat_plugin.figures.rank import rank_figure

LONG = "my_run$2024$_with-a-name-that-goes-on-and-on-lr3e-4-bs512-seed0, step143000"
MODELS = ("EleutherAI/pythia-410m", "EleutherAI/pythia-1b", "huggyllama/llama-7b", LONG)


def test_losses_by_rank():
    losses = losses_of(("a", "b"))
    axes = rank_figure(losses, NO_ACCURACIES).axes[0]
    assert (axes.get_xscale(), axes.get_xaxis().get_transform().base) == ("log", 2)
    assert axes.get_ylabel() == "loss (nats per token)"
    assert [float(label.get_text()) for label in axes.get_xticklabels()] == [1024, 512, 256, 128, 64, 32]
    lines = lines_of(axes)
    names = {"trained": "trained heads", "weighted": "weighted truncation", "truncated": "truncation"}
    assert lines.keys() == {f"{m}, {head}" for m in "ab" for head in (*names.values(), "own head")}
    bands = {band.get_label(): band.get_paths()[0].vertices for band in axes.collections}
    for model, curve in itertools.product("ab", names):
        expected = {
            row["rank"]: (row["loss"], row["gap_stderr"])
            for row in losses.to_dict("records")
            if (row["model"], row["curve"]) == (model, curve)
        }
        ranks, values = lines[f"{model}, {names[curve]}"]
        assert ranks == sorted(expected)
        assert values == [expected[rank][0] for rank in ranks]
        band = bands[f"{model}, {names[curve]}"]
        for rank, (loss, stderr) in expected.items():
            ends = {round(y, 9) for x, y in band if x == rank}
            assert ends == {round(loss - stderr, 9), round(loss + stderr, 9)}
    assert [set(lines[f"{model}, own head"][1]) for model in "ab"] == [{3.0}, {4.0}]


def test_losses_against_w_error_are_of_the_first_curve():
    losses = pd.concat([losses_of(("a",), ("weighted", "trained")), losses_of(("b",), ("truncated",))])
    figure = rank_figure(losses, NO_ACCURACIES)
    assert titles_of(figure) == ["(a) Loss", "(b) Loss against W-error"]
    lines = lines_of(figure.axes[1])
    assert set(lines) == {"a, weighted truncation", "a, own head", "b, truncation", "b, own head"}
    errors, values = lines["a, weighted truncation"]
    assert errors == [1 - rank / 1024 for rank in reversed(RANKS)]
    assert values == [3 + 10 - math.log2(rank) for rank in reversed(RANKS)]
    assert "W-error" in figure.axes[1].get_xlabel()


def test_accuracies_end_at_the_models_own_head():
    figure = rank_figure(NO_LOSSES, accuracies_of(("m",), TASKS[:2], ("trained", "truncated")))
    [axes] = figure.axes
    assert titles_of(figure) == ["Accuracy"]
    lines = lines_of(axes)
    assert set(lines) == {f"m, {task}, {head}" for task in TASKS[:2] for head in ("trained heads", "truncation")}
    for head in ("trained heads", "truncation"):
        ranks, values = lines[f"m, arc_easy, {head}"]
        assert ranks == list(RANKS)
        assert values == pytest.approx([*(0.3 + 0.0001 * rank for rank in RANKS[:-1]), 0.5])
    for container in axes.containers:
        [bars] = container[2]
        middles = [bar.mean(0)[1] for bar in bars.get_segments()]
        assert middles == pytest.approx(list(container[0].get_ydata()))
        assert [bar[1, 1] - bar[0, 1] for bar in bars.get_segments()] == pytest.approx([0.02] * 7)


def test_an_own_head_of_unknown_rank_is_a_level():
    [axes] = rank_figure(NO_LOSSES, accuracies_of(width=math.nan)).axes
    lines = lines_of(axes)
    assert lines["m, arc_easy, truncation"][0] == list(RANKS[:-1])
    assert set(lines["m, arc_easy, own head"][1]) == {0.5}
    assert "the model's own head" in legend_of(axes)
    [axes] = rank_figure(NO_LOSSES, accuracies_of()).axes
    assert "the model's own head" not in legend_of(axes)


def test_panels_without_data_are_left_out():
    both = rank_figure(losses_of(), accuracies_of())
    assert titles_of(both) == ["(a) Loss", "(b) Accuracy", "(c) Loss against W-error"]
    assert both.get_suptitle() == "m"
    only = rank_figure(losses_of(("a", "b")), NO_ACCURACIES)
    assert len(only.axes) == 2
    assert only.get_suptitle() == ""


def test_legends_say_each_thing_once():
    figure = rank_figure(losses_of(MODELS[:2]), accuracies_of(MODELS[:2], TASKS[:2], ("weighted",)))
    heads = ["trained heads", "weighted truncation", "truncation", "the model's own head"]
    assert legend_of(figure.axes[0]) == [*MODELS[:2], *heads, "± standard error of the gap"]
    assert legend_of(figure.axes[1]) == ["lambada_openai, acc", "arc_easy, acc"]
    assert legend_of(figure.axes[2]) == []
    [axes] = rank_figure(NO_LOSSES, accuracies_of(MODELS[:2], TASKS[:1])).axes
    assert legend_of(axes) == ["lambada_openai, acc", *MODELS[:2], "truncation"]


def test_looks_tell_models_or_tasks_apart():
    def looks(axes) -> dict[str, tuple[str, str]]:
        return {c.get_label(): (c[0].get_color(), c[0].get_marker()) for c in axes.containers}

    one = looks(rank_figure(losses_of(("m",)), accuracies_of(("m",))).axes[1])
    assert len({colour for colour, _ in one.values()}) == len({marker for _, marker in one.values()}) == 4
    figure = rank_figure(losses_of(MODELS), accuracies_of(MODELS))
    lines = [line for line in figure.axes[0].get_lines() if "own head" not in line.get_label()]
    of_models = {line.get_label().removesuffix(", truncation"): line.get_color() for line in lines[2::3]}
    assert set(of_models) == set(MODELS)
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 4
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 3
    several = looks(figure.axes[1])
    assert len(several) == len(set(several.values())) == 16
    for label, (colour, _) in several.items():
        assert colour == next(c for model, c in of_models.items() if label.startswith(f"{model}, "))


def test_errors_that_are_not_known_are_not_drawn():
    figure = rank_figure(losses_of(stderr=math.nan), accuracies_of(stderr=math.nan))
    assert not any(path.vertices.size for band in figure.axes[0].collections for path in band.get_paths())
    assert figure.axes[1].get_ylabel() == "accuracy"
    assert "± standard error of the gap" not in legend_of(figure.axes[0])


@pytest.mark.parametrize(
    ("losses", "accuracies"),
    [
        (losses_of(MODELS), accuracies_of(MODELS)),
        (losses_of(MODELS, ranks=tuple(2**k for k in range(14))), NO_ACCURACIES),
        (losses_of(MODELS[3:], ranks=(*(2**k for k in range(10)), 768)), accuracies_of(MODELS[3:])),
        (losses_of(("m",), ranks=(1023, 1024)), accuracies_of(width=1025.0)),
        (losses_of(("m",), ranks=(32,)), NO_ACCURACIES),
        (NO_LOSSES, accuracies_of(MODELS[3:], stderr=math.nan)),
        (NO_LOSSES, accuracies_of(MODELS, (*TASKS, f"{TASKS[0]} (num_fewshot=5, filter=strict-match)"))),
        (losses_of(MODELS[:1], stderr=math.nan), accuracies_of(MODELS[1:2], width=math.nan)),
    ],
    ids=("four", "many ranks", "one", "close ranks", "one rank", "tasks only", "many tasks", "apart"),
)
def test_labels_neither_overlap_nor_are_cut_off(losses, accuracies):
    figure = rank_figure(losses, accuracies)
    check_texts(figure)
    for axes in figure.axes:
        assert axes.get_window_extent().height > 1.5 * figure.dpi

"""Figures: the data that their lines hold, legible labels, and files of each format."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.transforms import Bbox
from places import ROOT

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.rank import ACCURACIES, LOSSES, rank_figure
from lmsat_plugin.figures.style import MARKERS, PALETTE, check_suffix, write_figure

RANKS = (32, 64, 128, 256, 512, 768, 1024)
TASKS = ("lambada_openai", "arc_easy", "piqa", "sciq")
LONG = "my_run$2024$_with-a-name-that-goes-on-and-on-lr3e-4-bs512-seed0, step143000"
MODELS = ("EleutherAI/pythia-410m", "EleutherAI/pythia-1b", "huggyllama/llama-7b", LONG)
NO_LOSSES, NO_ACCURACIES = pd.DataFrame(columns=LOSSES), pd.DataFrame(columns=ACCURACIES)


def losses_of(
    models=("m",), curves=("trained", "weighted", "truncated"), ranks=RANKS, stderr=0.1
) -> pd.DataFrame:
    """Return losses in another order than that of the ranks."""
    rows = [
        (
            model,
            curve,
            rank,
            1 - rank / ranks[-1],
            3 + i + (1 + j) * (10 - math.log2(rank)),
            stderr * (1 + j),
            3 + i,
        )
        for i, model in enumerate(models)
        for j, curve in enumerate(curves)
        for rank in reversed(ranks)
    ]
    return pd.DataFrame(rows, columns=LOSSES)


def accuracies_of(
    models=("m",), tasks=TASKS, curves=("truncated",), width=1024.0, stderr=0.01
) -> pd.DataFrame:
    rows: list[tuple] = []
    for (i, model), (j, task) in itertools.product(enumerate(models), enumerate(tasks)):
        base = 0.2 + 0.1 * j + 0.02 * i
        rows += [(model, task, "acc", None, width, base + 0.2, stderr)]
        rows += [
            (model, task, "acc", curve, rank, base + 0.0001 * rank, stderr)
            for curve in curves
            for rank in RANKS[:-1]
        ]
    return pd.DataFrame(rows, columns=ACCURACIES)


def lines_of(axes) -> dict[str, tuple[list[float], list[float]]]:
    """Return the data of lines and of lines with error bars, by label."""
    lines = {line.get_label(): line for line in axes.get_lines()}
    lines |= {container.get_label(): container[0] for container in axes.containers}
    return {
        label: (list(line.get_xdata()), list(line.get_ydata()))
        for label, line in lines.items()
        if not label.startswith("_")
    }


def titles_of(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


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
    assert set(lines) == {
        f"m, {task}, {head}" for task in TASKS[:2] for head in ("trained heads", "truncation")
    }
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


def test_the_first_colours_differ_in_grey():
    luminances = [np.dot([0.2126, 0.7152, 0.0722], np.array(to_rgb(colour)) ** 2.2) for colour in PALETTE[:4]]
    lightness = sorted(116 * y ** (1 / 3) - 16 for y in luminances)
    assert min(b - a for a, b in itertools.pairwise(lightness)) > 15
    assert len(set(PALETTE)) == len(PALETTE)
    assert math.gcd(len(PALETTE), len(MARKERS)) == 1


def test_errors_that_are_not_known_are_not_drawn():
    figure = rank_figure(losses_of(stderr=math.nan), accuracies_of(stderr=math.nan))
    assert not any(path.vertices.size for band in figure.axes[0].collections for path in band.get_paths())
    assert figure.axes[1].get_ylabel() == "accuracy"
    assert "± standard error of the gap" not in legend_of(figure.axes[0])


def _boxes(figure) -> dict[str, Bbox]:
    """Return where each text that is drawn stands."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes._left_title, *axes.get_legend().get_texts()]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return {
        f"{number} {text.get_text()}": text.get_window_extent(renderer) for number, text in enumerate(texts)
    }


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
    boxes = _boxes(figure)
    for label, box in boxes.items():
        assert figure.bbox.x0 <= box.x0, label
        assert figure.bbox.y0 <= box.y0, label
        assert box.x1 <= figure.bbox.x1, label
        assert box.y1 <= figure.bbox.y1, label
    for (one, first), (other, second) in itertools.combinations(boxes.items(), 2):
        common = Bbox.intersection(first, second)
        # Lines of a legend may touch.
        assert common is None or min(common.width, common.height) < 2, (one, other)
    for axes in figure.axes:
        assert axes.get_window_extent().height > 1.5 * figure.dpi


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF-"), ("a.SVG", b"<?xml")]
)
def test_files_of_each_format(tmp_path, name, begins):
    for folder in ("one", "other"):
        write_figure(rank_figure(losses_of(), accuracies_of()), tmp_path / folder / name)
    data = (tmp_path / "one" / name).read_bytes()
    assert data.startswith(begins)
    assert data == (tmp_path / "other" / name).read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [name]


def test_files_that_cannot_be_written(tmp_path):
    for name in ("a.xyz", "a", "png"):
        with pytest.raises(LmsatError, match=rf"{name} is no name of a figure.*\.png, \.svg, \.pdf"):
            check_suffix(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(LmsatError, match="cannot write"):
        write_figure(rank_figure(losses_of(), NO_ACCURACIES), tmp_path / "file" / "a.png")
    with pytest.raises(LmsatError, match="no name of a figure"):
        write_figure(rank_figure(losses_of(), NO_ACCURACIES), tmp_path / "a.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_state_is_left_behind():
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy();"
        "from test_figures import *; rank_figure(losses_of(), accuracies_of());"
        "sys.exit('matplotlib.pyplot' in sys.modules or matplotlib.rcParams != before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""``lmsat emergence`` from a CSV and from a tree of results: JSON, table, figure, and errors in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from lmsat_plugin.analysis.emergence import find_emergence
from lmsat_plugin.cli.main import main
from lmsat_plugin.figures.emergence import emergence_figure
from lmsat_plugin.figures.style import looks_of

KEYS = [
    *("task", "metric", "threshold", "low", "high", "emergent", "reason", "spearman", "pearson", "chance"),
    *("n_points", "n_models", "p_value", "shared", "two_step"),
]
MODELS = 5


def table_of(seed: int = 0) -> pd.DataFrame:
    """Return scores of a task that breaks at 2.2, of one that improves from the start, and of one at chance."""
    rng = np.random.default_rng(seed)
    rows = []
    for index, final in enumerate(np.linspace(1.75, 2.65, MODELS)):
        t = np.arange(1, 16) / 15
        losses = final + 0.35 * (t**-0.4 - 1)
        for step, loss in enumerate(losses, 1):
            scores = {"mmlu": max(2.2 - loss, 0), "hellaswag": 0.3 * (3.1 - loss), "race": 0.0}
            rows += [
                (f"run-{index}", 10 * step, loss, task, "acc", 0.25 + gain + rng.normal(0, 0.008), 3000)
                for task, gain in scores.items()
            ]
    return pd.DataFrame(rows, columns=["model", "step", "loss", "task", "metric", "score", "n_samples"])


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "scores.csv"
    table_of().assign(tokenizer="a").to_csv(path, index=False)
    return path


def printed(capsys, *arguments) -> list[dict]:
    assert main(["emergence", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_json(csv, capsys):
    found = {one["task"]: one for one in printed(capsys, csv)}
    assert [list(one) for one in found.values()] == [KEYS] * 3
    assert {task: one["emergent"] for task, one in found.items()} == {
        "hellaswag": False,
        "mmlu": True,
        "race": None,
    }
    assert found["mmlu"]["low"] <= 2.2 <= found["mmlu"]["high"]
    assert found["mmlu"]["n_models"] == MODELS
    assert found["mmlu"]["n_points"] == 15 * MODELS
    assert found["mmlu"]["chance"] == 0.25
    assert found["mmlu"]["shared"]["factor"] == "model"
    assert found["hellaswag"]["two_step"]["absolute_error"] < 0.05
    assert [found[task][end] for task in ("hellaswag", "race") for end in ("threshold", "low", "high")] == [
        None
    ] * 6


def test_globs_and_factor(csv, capsys):
    found = printed(capsys, csv, "--task", "m*", "--metric", "acc", "--factor", "tokenizer")
    assert [one["task"] for one in found] == ["mmlu"]
    assert found[0]["shared"]["shared"] is None


def test_table_gives_thresholds_and_reasons(csv, capsys):
    assert main(["emergence", str(csv)]) == 0
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.lstrip().startswith("mmlu ")]
    assert row.split()[2] == "yes"
    assert "hellaswag, acc: improves from the start" in out
    assert "race, acc: no change with the loss is seen" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--factor", "corpus"], "no column 'corpus' for a factor"),
        (["--task", "gsm8k"], "no task and metric that match 'gsm8k'"),
        (["--loss", "bits_per_byte"], "no column 'bits_per_byte'"),
        (["--figure", "curves.bmp"], "no name of a figure"),
    ],
)
def test_errors_are_one_sentence(csv, capsys, arguments, sentence):
    assert main(["emergence", str(csv), *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_missing_and_empty_files(tmp_path, capsys):
    assert main(["emergence", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read as CSV" in capsys.readouterr().err
    (tmp_path / "scores.csv").write_text("model,loss,task,metric\nm,2.0,mmlu,acc\n")
    assert main(["emergence", str(tmp_path / "scores.csv")]) == 2
    assert "no column 'score'" in capsys.readouterr().err


def test_a_tree_of_results(tmp_path, csv, capsys):
    table = table_of()
    for (model, step), rows in table.groupby(["model", "step"]):
        results = {
            row.task: {"acc,none": row.score, "acc_stderr,none": (row.score * (1 - row.score) / 3000) ** 0.5}
            for row in rows.itertuples()
        }
        loss = float(rows["loss"].iloc[0])
        results["lmsat_loss"] = {
            "loss,none": loss,
            "bits_per_byte,none": loss / 3,
            "perplexity,none": 2.7**loss,
        }
        content = {
            "results": results,
            "n-samples": {task: {"original": 3000, "effective": 3000} for task in results},
            "higher_is_better": {task: {"acc": True} for task in results},
            "config": {"model": "hf", "model_args": {"pretrained": f"me/{model}", "revision": f"step{step}"}},
            "date": 1.7e9,
        }
        folder = tmp_path / "tree" / model
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"results_step{step}.json").write_text(json.dumps(content))
    expected = {one["task"]: one for one in printed(capsys, csv)}
    found = {one["task"]: one for one in printed(capsys, tmp_path / "tree")}
    assert {task: one["emergent"] for task, one in found.items()} == {
        task: one["emergent"] for task, one in expected.items()
    }
    assert found["mmlu"]["threshold"] == pytest.approx(expected["mmlu"]["threshold"], abs=0.01)
    (bits,) = printed(capsys, tmp_path / "tree", "--loss", "bits_per_byte", "--task", "mmlu")
    assert bits["threshold"] == pytest.approx(found["mmlu"]["threshold"] / 3, abs=0.005)


def test_figure_file(csv, tmp_path, capsys):
    assert main(["emergence", str(csv), "--figure", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_figure_shows_scores_chance_and_threshold():
    table = table_of()
    found = find_emergence(table)
    figure = emergence_figure(found)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "hellaswag, acc",
        "mmlu, acc",
        "race, acc",
    ]
    looks = looks_of(f"run-{index}" for index in range(MODELS))
    for axes, one in zip(figure.axes, found, strict=True):
        assert axes.xaxis_inverted()
        lines = {line.get_label(): line for line in axes.get_lines()}
        for model, look in looks.items():
            rows = table[(table.model == model) & (table.task == one.task)]
            np.testing.assert_array_equal(lines[model].get_xdata(), rows["loss"])
            np.testing.assert_array_equal(lines[model].get_ydata(), rows["score"])
            assert to_rgb(lines[model].get_color()) == to_rgb(look["color"])
        assert set(lines["chance"].get_ydata()) == {0.25}
        assert ("threshold" in lines) == bool(one.emergent)
    mmlu = next(one for one in found if one.task == "mmlu")
    (axes,) = mmlu.plot().axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines["threshold"].get_xdata()) == {mmlu.threshold}
    (span,) = axes.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((mmlu.low, mmlu.high))
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [*looks, "chance", "best curve", "threshold", "its 90 % interval"]


def test_imports_stay_light():
    code = (
        "import sys, lmsat_plugin.cli, lmsat_plugin.analysis.emergence; "
        "print([m for m in ('torch', 'lm_eval', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Published series, straight from their result files: every command that judges them, without an option."""

from __future__ import annotations

import csv
import json
import logging
import re

import numpy as np
import pytest
import series_trees as trees
from report_trees import read_analyses

from lmsat_plugin.analysis import find_emergence, fit, sample_efficiency
from lmsat_plugin.cli.main import main
from lmsat_plugin.page.sections import all_figures
from lmsat_plugin.page.tables import tables_of
from lmsat_plugin.page.verdicts import verdicts_of
from lmsat_plugin.results import Results

SIZES = {f"m{index}": int(1e8 * 3**index) for index in range(5)}
SEEDS = {1: True, 2: False, 3: False, 4: True}
INGREDIENT = "stage2-ingredient{}-step3000-tokens15B"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """OLMo 2, DataDecide, PolyPythias, BabyLM, Baichuan 2 and Amber in one folder."""
    root = tmp_path_factory.mktemp("series")
    losses = {
        "OLMo-2": trees.write_olmo2(root, "OLMo-2"),
        "DD": trees.write_datadecide(root, "DD"),
        "BabyLM": trees.write_babylm(root, "BabyLM"),
        "Baichuan": trees.write_baichuan(root, "Baichuan"),
        "Amber": trees.write_amber(root, "Amber"),
    }
    return root, losses, trees.write_polypythias(root, SEEDS)


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory):
    """Two runs of one model, a stage that begins again, and a series that counts words."""
    root = tmp_path_factory.mktemp("small")
    trees.write_polypythias(root, {1: True, 2: False}, steps=24)
    trees.write_checkpoint(root, "OLMo-2", "stage1-step1000-tokens4B", 3.0)
    for step in (1000, 2000):
        trees.write_checkpoint(root, "OLMo-2", f"stage2-ingredient1-step{step}-tokens{5 * step // 1000}B", 2.5)
    trees.write_babylm(root, "BabyLM")
    return root


@pytest.fixture(scope="module")
def scaling(tmp_path_factory):
    root = tmp_path_factory.mktemp("scaling")
    return root, trees.write_scaling(root, SIZES)


def test_saturation(tree, capsys):
    root, losses, by_seed = tree
    assert main(["saturation", str(root), "--json"]) == 0
    found = {result["label"]: result for result in json.loads(capsys.readouterr().out)}
    ends = {
        "OLMo-2": losses["OLMo-2"]["stage1-step20000-tokens80B"],
        **{f"OLMo-2 (stage2, ingredient{n})": losses["OLMo-2"][INGREDIENT.format(n)] for n in (1, 2, 3)},
        "DD (default)": losses["DD"]["step50000-seed-default"],
        "DD (small-aux-2)": losses["DD"]["step12500-seed-small-aux-2"],
        "DD (large-aux-2)": losses["DD"]["step12500-seed-large-aux-2"],
        "BabyLM": losses["BabyLM"]["chck_100M"],
        "Baichuan": losses["Baichuan"]["train_02420B"],
        "Amber": losses["Amber"]["ckpt_300"],
        **{f"pythia-410m (seed{seed})": by_seed[seed, 30000] for seed in SEEDS},
    }  # fmt: skip
    assert {name: result["final"] for name, result in found.items()} == pytest.approx(ends)
    assert {name for name, result in found.items() if result["verdict"] == "saturates"} == {
        f"pythia-410m (seed{seed})" for seed, rises in SEEDS.items() if rises
    }
    assert found["OLMo-2"]["n_checkpoints"] == 20


def test_saturation_counts_runs(small_tree, capsys):
    assert main(["saturation", str(small_tree)]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "pythia-410m: saturates in 1 of 2 runs (seed1)"


def test_leaderboard(tree, capsys):
    root, losses, by_seed = tree
    assert main(["leaderboard", str(root), "--format", "json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    means = {
        "OLMo-2": losses["OLMo-2"]["stage1-step20000-tokens80B"],
        "OLMo-2 (stage2)": np.mean([losses["OLMo-2"][INGREDIENT.format(n)] for n in (1, 2, 3)]),
        "OLMo-2 (main)": losses["OLMo-2"]["main"],
        "DD": losses["DD"]["step50000-seed-default"],
        "BabyLM": losses["BabyLM"]["chck_100M"],
        "Baichuan": losses["Baichuan"]["train_02420B"],
        "Amber": losses["Amber"]["ckpt_300"],
        "pythia-410m": np.mean([by_seed[seed, 30000] for seed in SEEDS]),
    }
    assert {name: row["loss"] for name, row in rows.items()} == pytest.approx(means)
    runs = {name: row["runs"] for name, row in rows.items() if row["runs"] is not None}
    assert runs == {"OLMo-2 (stage2)": 3, "DD": 1, "pythia-410m": 4}
    assert rows["OLMo-2 (stage2)"]["tokens"] == 95 * trees.B


def test_what_a_report_shows(small_tree, tmp_path):
    """Its figures are drawn when they are asked for: a few of them are."""
    analyses = read_analyses(small_tree, tokens_per_step=None)
    said = [str(verdicts) for verdicts in verdicts_of(analyses)]
    assert "pythia-410m, over its runs: saturates in 1 of 2 runs (seed1)." in said[0]
    tables = {table.name: list(csv.DictReader(table.csv.splitlines())) for table in tables_of(analyses, tmp_path)}
    later = next(row for row in tables["final"] if row["model"] == "OLMo-2 (stage2, ingredient1)")
    assert (later["step"], later["tokens"], later["tokens in total"]) == ("2000", str(10 * trees.B), str(14 * trees.B))
    figures = {figure.name: figure for figure in all_figures(analyses)}
    cards = {name for name in figures if name.startswith("card-")}
    assert cards == {"card-OLMo-2-stage2-ingredient1", "card-BabyLM", "card-pythia-410m"}
    assert figures["card-pythia-410m"].title == "pythia-410m: saturates in 1 of 2 runs"
    assert figures["loss-by-step-on-words"].title == "Loss by words seen"
    (axes,) = figures["loss-by-step"].draw().axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert {"pythia-410m", "OLMo-2 (stage2, ingredient1)"} <= lines.keys()
    steps, means = lines["pythia-410m"].get_data()
    by_seed = np.array(
        [analyses.table[(analyses.table.model == f"pythia-410m (seed{seed})") & (analyses.table.metric == "loss")]
         .sort_values("step").value for seed in (1, 2)]
    )  # fmt: skip
    assert list(steps) == list(range(1000, 25000, 1000))
    assert means == pytest.approx(by_seed.mean(0))
    band = axes.collections[-1].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((by_seed.min(), by_seed.max()))
    assert {text.get_text() for text in figures["card-pythia-410m"].draw().axes[-1].get_legend().get_texts()} == {
        "mean of runs", "from the least run to the greatest",
    }  # fmt: skip


def test_efficiency_counts_all_tokens_seen(scaling, capsys):
    root, points = scaling
    wanted = 2.55
    assert main(["efficiency", str(root), "--loss", str(wanted), "--json"]) == 0
    found = {row["model"]: row for row in json.loads(capsys.readouterr().out)["reached"]}
    for series in {name for name, *_ in points}:
        tokens, losses = np.array([(tokens, loss) for name, _, tokens, loss in points if name == series]).T
        expected = None
        if losses.min() <= wanted:
            expected = tokens[0] if losses[0] <= wanted else np.exp(np.interp(-wanted, -losses, np.log(tokens)))
        assert found[series]["tokens"] == (None if expected is None else pytest.approx(expected, rel=1e-6)), series


def test_fit_counts_all_tokens_seen(scaling, caplog):
    root, _ = scaling
    with caplog.at_level(logging.WARNING):
        law = fit("chinchilla", Results.read(root), repetitions=0)
    assert law.points.runs == 2 * len(SIZES)
    params = {name: param.value for name, param in law.params.items()}
    assert params == pytest.approx({"E": 1.7, "A": 400, "B": 410, "alpha": 0.34, "beta": 0.28}, rel=0.02)


def test_tokens_that_are_unknown_are_left_out(tmp_path):
    """Of a stage whose parent is not there the tokens before are unknown, and never only its own."""
    for tokens in (1, 2, 3):
        trees.write_checkpoint(tmp_path, "a", f"stage1-step{tokens * 10}-tokens{tokens}B", 3 - tokens / 10)
        trees.write_checkpoint(tmp_path, "b", f"stage2-ingredient1-step{tokens * 10}-tokens{tokens}B", 2 - tokens / 10)
    table = sample_efficiency(Results.read(tmp_path), [2.75]).table
    assert set(table.model) == {"a"}


def test_emergence_draws_runs(tmp_path):
    trees.write_polypythias(tmp_path, dict.fromkeys(range(1, 5), False), steps=8)
    (result,) = find_emergence(Results.read(tmp_path))
    assert (result.n_models, result.n_points, len(result.scores.runs)) == (1, 32, 4)
    assert [len(run) for run in result.scores.runs] == [8] * 4
    for run in result.scores.runs:
        assert result.scores.table.step.to_numpy()[run].tolist() == list(range(1000, 9000, 1000))
    # Four runs tell a run's own path from that of all.
    assert not re.search("own path", result.reason)
    csv_table = result.scores.table[["task", "metric", "loss", "score", "step"]].assign(
        model="m", run=result.scores.table.revision.index % 4
    )
    assert len(find_emergence(csv_table)[0].scores.runs) == 4

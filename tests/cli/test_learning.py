"""``lmsat learning``: what it prints and draws."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from token_loss_trees import MadeText

from lmsat_plugin.analysis.learning import find_learning
from lmsat_plugin.cli.main import main
from lmsat_plugin.figures import plot
from lmsat_plugin.results import Results


@pytest.fixture
def tree(tmp_path):
    """Return results of twelve checkpoints: rare tokens get worse as the mean falls, and the loss slows down."""
    text = MadeText()
    rng = np.random.default_rng(0)
    rare_N = text.ids_N > np.quantile(text.ids_N, 0.7)
    for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048):
        loss = 6 * (step / 64) ** (-0.2 if step < 64 else -0.02)
        losses_N = loss + 0.2 * rare_N * np.log(step) + 0.01 * rng.standard_normal(len(rare_N))
        text.write(tmp_path / "results", step, losses_N)
    return tmp_path / "results"


def test_the_command(tree, tmp_path, capsys):
    assert main(["learning", str(tree), "--figure", str(tmp_path / "f.png")]) == 0
    printed = capsys.readouterr().out
    assert "m: the loss of rare tokens rises while the mean falls in " in printed
    assert "m: the loss decelerates at step " in printed
    assert "on average before the deceleration" in printed
    assert (tmp_path / "f.png").stat().st_size > 10_000
    assert main(["learning", str(tree), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert len(run["changes"]) == 11
    assert {"interference", "worse", "parts", "rising_parts", "reason"} <= run["changes"][0].keys()
    assert main(["learning", str(tree), "--format", "csv", "--output", str(tmp_path / "t.csv")]) == 0
    table = pd.read_csv(tmp_path / "t.csv")
    assert table.interference.tolist() == pytest.approx([change["interference"] for change in run["changes"]])
    assert table["parts.rare.rise_share"].notna().any()


def test_the_figure_has_d_and_the_share_of_worse_tokens(tree):
    (run,) = find_learning(Results.read(tree), repetitions=20)
    (axes,) = plot(run).axes
    d, worse, slows = axes.lines
    assert d.get_ydata().tolist() == [change.interference for change in run.changes]
    assert worse.get_ydata().tolist() == [change.worse for change in run.changes]
    assert slows.get_xdata()[0] == run.deceleration.value


def test_results_without_the_loss_of_tokens(tmp_path, capsys):
    text = MadeText()
    for step in (1, 2):
        text.write(tmp_path, step, np.full(len(text.ids_N), 3.0 / step), tokens=False)
    assert main(["learning", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "≥ 0.000" in printed
    assert "D and which tokens get worse are not known: the results hold no array by_token" in printed
    assert "token_losses: true" in printed


def test_bad_input_is_a_sentence(tmp_path, capsys):
    MadeText().write(tmp_path / "results", 1, np.full(33, 3.0))
    assert main(["learning", str(tmp_path / "results")]) == 2
    assert "changes need two" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("model,step,loss\nm,1,2\n")
    assert main(["learning", str(tmp_path / "t.csv")]) == 2
    assert "is a table: give the folder of results" in capsys.readouterr().err

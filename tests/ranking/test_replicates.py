"""Leaderboards of published series: one row for the runs of a model, whose spread counts, and stages apart."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import series_trees as trees
from report_trees import read_analyses
from scipy.stats import t, ttest_1samp, ttest_ind

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures import plot
from lmsat_plugin.ranking import ranks
from lmsat_plugin.ranking.hub_folder import write_hub_folder
from lmsat_plugin.ranking.leaderboard import leaderboard_of, make_leaderboard
from lmsat_plugin.ranking.ranks import Scored, rank_models
from lmsat_plugin.ranking.replicates import pool_runs


def board_of(root):
    return leaderboard_of(read_analyses(root, tokens_per_step=None))


def test_runs_share_a_row_with_their_spread(tmp_path):
    losses = trees.write_polypythias(tmp_path, {1: False, 2: False, 3: True, 4: False}, steps=12)
    (row,) = board_of(tmp_path).rows
    last = np.array([loss for (_, step), loss in losses.items() if step == 12000])
    assert (row["model"], row["runs"], row["checkpoint"], row["rank"]) == ("pythia-410m", 4, "step12000", 1)
    assert row["loss"] == pytest.approx(last.mean())
    assert row["loss_stderr"] == pytest.approx(np.sqrt(last.var(ddof=1) / 4 + trees.STDERR**2))
    half = np.hypot(t.ppf(0.95, 3) * last.std(ddof=1) / 2, 1.6448536 * trees.STDERR)
    assert [row["loss_low"], row["loss_high"]] == pytest.approx([last.mean() - half, last.mean() + half])
    assert row["best_loss"] == min(losses.values())
    assert row["downstream"] == pytest.approx((0.7 - 0.5) / 0.5)
    assert row["downstream_stderr"] == pytest.approx(0.011 / 0.5)
    assert row["verdict"] == "saturates in 0 of 4 runs"


def test_the_interval_of_runs_alone_is_students(tmp_path):
    """Without a sampling error the interval is that of a t-test."""
    losses = [3.0, 3.1, 3.3, 3.35, 3.2]
    for seed, loss in enumerate(losses):
        path = trees.write_checkpoint(tmp_path, "m", f"step100-seed-{'abcde'[seed]}", loss)
        content = json.loads(path.read_text("utf-8"))
        content["results"]["lmsat_loss"]["loss_stderr,none"] = 0.0
        path.write_text(json.dumps(content), "utf-8")
    (row,) = make_leaderboard(read_analyses(tmp_path).table).rows
    interval = ttest_1samp(losses, 0).confidence_interval(0.9)
    assert [row["loss_low"], row["loss_high"]] == pytest.approx([*interval])
    figure = plot(board_of(tmp_path))
    (segment,) = figure.axes[0].collections[0].get_segments()
    assert segment[:, 0] == pytest.approx([*interval])


def test_tests_of_runs_are_welchs():
    rng = np.random.default_rng(0)
    first, second = rng.normal(3.0, 0.1, 6), rng.normal(3.15, 0.03, 4)
    scored = [
        Scored(value=own.mean(), stderr=0.0, runs=len(own), between=own.std(ddof=1) / np.sqrt(len(own)))
        for own in (first, second)
    ]
    p_value = ttest_ind(first, second, equal_var=False).pvalue
    assert p_value < 0.049
    assert rank_models(scored, higher_is_better=False).ranks == [1, 2]
    wide = [Scored(value=one.value, stderr=0.0, runs=one.runs, between=10 * one.between) for one in scored]
    assert rank_models(wide, higher_is_better=False).ranks == [1, 1]
    assert ranks._unpaired(*scored) == pytest.approx(p_value)


def test_runs_are_compared_document_by_document_and_by_their_spread():
    rng = np.random.default_rng(1)
    tokens_M = rng.integers(50, 200, 40)
    nats_M = 3 * tokens_M + rng.normal(0, 80, 40)
    sums = [nats_M + more * tokens_M + rng.normal(0, 0.5, 40) for more in (0.0, 0.02)]
    plain = [Scored(value=own.sum() / tokens_M.sum(), stderr=0.1, documents=(own, tokens_M)) for own in sums]
    assert rank_models(plain, higher_is_better=False).ranks == [1, 2]
    runs = [
        Scored(value=one.value, stderr=0.1, documents=one.documents, runs=4, between=between)
        for one, between in zip(plain, (0.02, 0.02), strict=True)
    ]
    found = rank_models(runs, higher_is_better=False)
    assert (found.ranks, found.paired, found.runs) == ([1, 1], 1, "all")
    assert "and for how training runs differ" in found.method


def test_runs_that_end_early_have_no_part_in_the_mean(tmp_path):
    losses = trees.write_datadecide(tmp_path, "org/DD")
    board = board_of(tmp_path)
    (row,) = board.rows
    assert (row["model"], row["runs"], row["loss"]) == ("org/DD", 1, losses["step50000-seed-default"])
    assert row["loss_stderr"] == trees.STDERR
    assert any("Not in the mean of org/DD, since they end before step 50,000: org/DD" in note for note in board.notes)


def test_stages_have_rows_of_their_own(tmp_path):
    losses = trees.write_olmo2(tmp_path, "org/OLMo-2")
    rows = {row["model"]: row for row in board_of(tmp_path).rows}
    assert list(rows) == ["org/OLMo-2 (main)", "org/OLMo-2 (stage2)", "org/OLMo-2"]
    first, later = rows["org/OLMo-2"], rows["org/OLMo-2 (stage2)"]
    assert (first["loss"], first["tokens"]) == (losses["stage1-step20000-tokens80B"], 80 * trees.B)
    ends = [losses[f"stage2-ingredient{number}-step3000-tokens15B"] for number in (1, 2, 3)]
    assert (later["loss"], later["tokens"], later["runs"]) == (pytest.approx(np.mean(ends)), 95 * trees.B, 3)
    assert later["best_step"] == 3000
    assert rows["org/OLMo-2 (main)"].get("tokens") is None


@pytest.mark.parametrize(
    ("write", "last"),
    [(trees.write_babylm, "chck_100M"), (trees.write_baichuan, "train_02420B"), (trees.write_amber, "ckpt_300")],
)
def test_the_last_checkpoint_on_other_axes(tmp_path, write, last):
    losses = write(tmp_path, "m")
    analyses = read_analyses(tmp_path, tokens_per_step=None)
    (row,) = leaderboard_of(analyses).rows
    (verdict,) = analyses.saturation
    assert (row["checkpoint"], row["loss"], verdict.final_revision) == (last, losses[last], last)
    assert row.get("best_step") is None


def test_names_without_an_order_have_no_last_checkpoint(tmp_path):
    for name in ("kestrel", "phoenix"):
        trees.write_checkpoint(tmp_path, "marin", name, 3.0)
    with pytest.raises(
        LmsatError, match=r"marin is left out, since names such as kestrel, phoenix do not say.*revisions"
    ):
        board_of(tmp_path)
    trees.write_checkpoint(tmp_path, "one", "kestrel", 3.0)
    board = board_of(tmp_path)
    assert [row["model"] for row in board.rows] == ["one"]
    assert any(note.startswith("marin is left out") for note in board.notes)


def test_tokens_that_began_again_do_not_choose_the_last_checkpoint(tmp_path):
    for step, tokens in ((1000, 9), (2000, 18), (3000, 4)):
        trees.write_checkpoint(tmp_path, "m", f"step{step}-tokens{tokens}B", 4 - step / 10000)
    analyses = read_analyses(tmp_path, tokens_per_step=None)
    (row,) = leaderboard_of(analyses).rows
    assert row["checkpoint"] == analyses.saturation[0].final_revision == "step3000-tokens4B"


def test_the_hubs_folder_has_all_runs(tmp_path):
    trees.write_polypythias(tmp_path / "tree", {1: False, 2: False}, steps=3)
    analyses = read_analyses(tmp_path / "tree", tokens_per_step=None)
    write_hub_folder(leaderboard_of(analyses), analyses, tmp_path / "hub")
    assert len(list((tmp_path / "hub/results").rglob("results_*.json"))) == 2
    assert not (tmp_path / "hub/eval_results").exists()


def test_runs_on_one_document_have_the_spread_between_them():
    last = pd.DataFrame({"model": ["m (a)", "m (b)"], "group": "m", "axis": "step", "at": 9.0, "revision": "step9"})
    rows = {model: {"model": model, "loss": loss} for model, loss in (("m (a)", 3.0), ("m (b)", 3.2))}
    document = {model: (np.array([row["loss"] * 10]), np.array([10])) for model, row in rows.items()}
    pooled = pool_runs(rows, last, document)
    assert pooled.rows["m"]["loss_stderr"] == pytest.approx(np.std([3.0, 3.2], ddof=1) / np.sqrt(2))

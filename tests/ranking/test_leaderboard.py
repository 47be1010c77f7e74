"""The leaderboard: what models are ranked by, what is known of each, and how the ranks come about."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from places import PYTHIA_EVALS
from report_trees import read_analyses
from result_trees import write_result
from safetensors.numpy import save_file
from scipy.stats import norm
from score_tables import loss_rows, table_of
from training_runs import results_of

from lmsat_plugin import load_results
from lmsat_plugin.analysis import find_saturation, fit
from lmsat_plugin.page.sections.scaling import final_losses_with_flops
from lmsat_plugin.page.verdicts import verdicts_of
from lmsat_plugin.ranking.leaderboard import leaderboard_of, make_leaderboard


def test_by_bits_per_byte_where_tokens_differ():
    rows = [*loss_rows("few long tokens", 3.5, 800), *loss_rows("many short tokens", 3.2, 1000)]
    found = make_leaderboard(table_of(rows))
    assert found.ranked_by.name == "bits_per_byte"
    assert [row["model"] for row in found.rows] == ["few long tokens", "many short tokens"]
    assert "do not compare" in " ".join(found.notes)
    best = found.rows[0]
    assert best["bits_per_byte_stderr"] == pytest.approx(0.01 * 800 / 4000 / np.log(2))
    same = make_leaderboard(table_of([*rows[:4], *loss_rows("many short tokens", 3.2, 800)]))
    assert (same.ranked_by.name, same.rows[0]["model"]) == ("loss", "many short tokens")


def test_what_is_known_of_the_last_checkpoint():
    steps = {100: 4.0, 200: 3.0, 400: 3.25}
    rows = [
        row
        for step, loss in steps.items()
        for row in loss_rows("m", loss, step=step, revision=f"step{step}", path=str(step))
    ]
    head = {"model": "m", "task": "lmsat_head", "hidden_size": 64}
    last = {**head, "step": 400, "revision": "step400"}
    rows += [
        {**last, "metric": "effective_rank", "value": 48.0},
        {**head, "step": 200, "revision": "step200", "metric": "singular_entropy", "value": 9.0},
        {**last, "metric": "singular_entropy", "value": 2.5},
    ]
    (row,) = make_leaderboard(table_of(rows)).rows
    assert (row["loss"], row["best_loss"], row["best_step"], row["checkpoint"]) == (3.25, 3.0, 200, "step400")
    assert (row["head_capacity"], row["singular_entropy"], row["rank"]) == (0.75, 2.5, 1)
    assert "anisotropy_last" not in row
    assert "downstream" not in row


def test_gap_to_a_law():
    """Losses of a known law: the gap of a model 8 % above it is 8 %."""
    sizes = [(n, d) for n in (1e7, 4e7, 1.6e8, 6.4e8) for d in (1e9, 4e9, 1.6e10)]
    rows = [
        row
        for index, (n, d) in enumerate(sizes)
        for row in loss_rows(f"m{index}", 1.7 + 400 / n**0.34 + 410 / d**0.28, n_params=int(n), tokens_=int(d))
    ]
    table = table_of(rows).assign(tokens=lambda t: t.tokens_.astype("Int64"))
    law = fit("chinchilla", table[table.metric == "loss"].rename(columns={"value": "loss"}))
    table.loc[(table.model == "m5") & (table.metric == "loss"), "value"] *= 1.08
    gaps = {row["model"]: row["law_gap"] for row in make_leaderboard(table, law=law).rows}
    assert gaps["m5"] == pytest.approx(8, abs=0.2)
    assert max(abs(gap) for model, gap in gaps.items() if model != "m5") < 0.2


def test_leaderboard_of_a_tree(board):
    rows = {row["model"]: row for row in board.rows}
    assert [row["model"] for row in board.rows][:2] == ["org/m4", "org/m3"]
    assert rows["org/sick"]["verdict"] == "saturates"
    assert rows["org/m4"]["verdict"] != "saturates"
    for worse, better in itertools.permutations(board.rows, 2):
        z = (worse["loss"] - better["loss"]) / (0.006 * np.sqrt(2))
        # Holm's strictest level, of 21 pairs: whoever is better by that is ranked before.
        if z > norm.isf(0.025 / 21):
            assert worse["rank"] > better["rank"]
    assert {"downstream", "above_loss", "anisotropy_last", "best_step"} <= {column.name for column in board.columns}
    assert "21 pairs (0 of them document by document" in board.notes[1]
    # All have seen as many tokens.
    assert board.notes[-1].endswith("at their last checkpoints, with E = 1.69, B = 410.7, beta = 0.28 given.")
    assert rows["org/sick"]["law_gap"] > rows["org/m4"]["law_gap"]
    assert "2 tasks that all of these models have: arc_easy (acc, 0-shot), piqa (acc, 0-shot)" in " ".join(board.notes)


def test_losses_by_document_tell_apart_what_standard_errors_cannot(tmp_path):
    rng = np.random.default_rng(4)
    tokens_M = rng.integers(50, 200, 30)
    nats_M = 3 * tokens_M + rng.normal(0, 80, 30)
    for model, more in (("better", 0.0), ("worse", 0.02)):
        sums_M = nats_M + more * tokens_M + rng.normal(0, 0.5, 30)
        loss = float(sums_M.sum() / tokens_M.sum())
        path = write_result(tmp_path, model, 100, {"lmsat_loss": {"loss": (loss, 0.1)}})
        data = json.loads(path.read_text("utf-8"))
        data["config"]["lmsat"]["arrays"] = str(path.with_suffix(".safetensors"))
        path.write_text(json.dumps(data), "utf-8")
        arrays = {"loss/by_document": sums_M, "loss/by_document_tokens": tokens_M}
        save_file(arrays, path.with_suffix(".safetensors"))
    analyses = read_analyses(tmp_path)
    found = leaderboard_of(analyses)
    assert [(row["model"], row["rank"]) for row in found.rows] == [("better", 1), ("worse", 2)]
    assert [row["rank"] for row in make_leaderboard(analyses.table).rows] == [1, 1]


def test_a_model_without_losses_saturates_by_so_many_of_its_scores():
    steps = np.arange(1, 21) * 1000
    rising = 0.5 + 0.02 * np.sqrt(steps / 1000)
    worse = np.where(steps > 14_000, rising - 0.08, rising) + 0.002 * np.random.default_rng(0).standard_normal(20)
    scores = {("a", "piqa"): rising, ("a", "sciq"): worse, ("b", "piqa"): rising, ("b", "sciq"): rising}
    parts = []
    for (model, task), values in scores.items():
        paths = {"path": [f"{model}{step}" for step in steps], "revision": [f"step{step}" for step in steps]}
        parts.append(results_of(values, steps, task=task, model=model, num_fewshot=0, filter="none", **paths))
    table = pd.concat(parts, ignore_index=True)
    found = make_leaderboard(table_of(table.assign(stderr=0.003).to_dict("records")), find_saturation(table))
    verdicts = {row["model"]: row["verdict"] for row in found.rows}
    assert verdicts == {"a": "saturates by 1 of 2 scores", "b": "saturates by 0 of 2 scores"}
    # Of one task the verdict itself, or that with each number of shots.
    one = table[table.task == "sciq"]
    finals = table_of(one.assign(stderr=0.003).to_dict("records"))
    found = make_leaderboard(finals, find_saturation(one))
    assert {row["model"]: row["verdict"] for row in found.rows} == {"a": "saturates", "b": "improving"}
    both = pd.concat([one, one[one.model == "a"].assign(num_fewshot=5)])
    found = make_leaderboard(finals, find_saturation(both))
    assert {row["model"]: row["verdict"] for row in found.rows}["a"] == "saturates by 2 of 2 scores"


@pytest.mark.skipif(not PYTHIA_EVALS.is_dir(), reason="needs EleutherAI's published scores")
def test_published_scores_of_pythia():
    found = make_leaderboard(load_results(PYTHIA_EVALS))
    assert [row["model"].rpartition("-")[2] for row in found.rows] == ["410m", "160m", "70m"]
    path = next(PYTHIA_EVALS.rglob("*410m*step143000*"))
    scores = json.loads(path.read_text("utf-8"))["results"]
    chances = {
        **dict.fromkeys(("arc_challenge", "arc_easy", "logiqa", "sciq"), 0.25),
        **dict.fromkeys(("piqa", "winogrande", "wsc"), 0.5),
        "lambada_openai": 0.0,
    }
    own = [(scores[task]["acc"] - chance) / (1 - chance) for task, chance in chances.items()]
    subjects = [(score["acc"] - 0.25) / 0.75 for task, score in scores.items() if task.startswith("hendrycksTest-")]
    assert found.rows[0]["downstream"] == pytest.approx((sum(own) + np.mean(subjects)) / 9)


def test_a_run_that_diverged_has_no_rank(tmp_path):
    """It is named with the step, its earlier losses are nowhere its last, and no law is fitted to them."""
    for model, ends in (("a", None), ("b", None), ("sick", 4000)):
        for step in (1000, 2000, 4000):
            loss = math.nan if step == ends else 4 - math.log(step) / 5 + (model == "b")
            write_result(tmp_path, model, step, {"lmsat_loss": {"loss": (loss, 0.01)}}, 10**6)
    analyses = read_analyses(tmp_path)
    board = leaderboard_of(analyses)
    assert [(row["model"], row["rank"], row["verdict"]) for row in board.rows][2] == ("sick", None, "diverged")
    said = "its loss is not finite from step 4,000 on; before, it was at best 2.48, at step 2,000"
    assert f"sick: diverged: {said}; it has no rank." in board.notes
    assert set(analyses.final_losses().model) == set(final_losses_with_flops(analyses).model) == {"a", "b"}
    assert verdicts_of(analyses)[0].sentences[0] == ("sick", f"diverged: {said}.")

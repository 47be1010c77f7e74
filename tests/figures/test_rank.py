"""What the figure of head ranks draws of results: all curves of losses, and accuracies by head rank."""

from __future__ import annotations

import json

import numpy as np
from matplotlib.figure import Figure
from rank_results import RANKS, arrays_of, write_rank_result, write_scores

from lmsat_plugin.analysis import find_rank_needed
from lmsat_plugin.analysis.rank_needed import CURVES, RankCurve, w_error
from lmsat_plugin.figures import plot
from lmsat_plugin.results import Results


def drawn(monkeypatch, tree, curve=None):
    """Return the losses and the accuracies that the figure of a tree shows."""
    shown = []
    monkeypatch.setattr(
        "lmsat_plugin.figures.rank.rank_figure",
        lambda losses, accuracies, among: shown.append((losses, accuracies)) or Figure(),
    )
    plot(find_rank_needed(Results.read(tree), curve))
    [data] = shown
    return data


def test_figure_of_losses_and_accuracies(tmp_path, monkeypatch):
    hits = {f"accuracy_rank_{rank},none": rank / 100 for rank in RANKS.tolist()}
    hits |= {"accuracy_rank_4_stderr,none": 0.01}
    write_rank_result(tmp_path / "tree/a", 10, arrays_of(1))
    file = tmp_path / "tree/a/results_10.json"
    content = json.loads(file.read_text())
    content["results"]["lmsat_rank_head"] |= hits
    content["config"]["model_args"] = {"pretrained": "runs/neox-w24/step10"}
    file.write_text(json.dumps(content))
    args = {"pretrained": "/elsewhere/neox-w24/step10", "head_rank": 8}
    write_scores(tmp_path / "tree/b/results_1.json", args, {"piqa": {"acc,none": 0.6}}, name="rank 8")
    losses, accuracies = drawn(monkeypatch, tmp_path / "tree")
    assert losses.model.unique().tolist() == accuracies.model.unique().tolist() == ["neox-w24"]
    for name in CURVES:
        curve = RankCurve.from_arrays(arrays_of(1), name)
        rows = losses[losses.curve == name]
        assert rows["rank"].tolist() == RANKS.tolist()
        np.testing.assert_allclose(rows.loss, curve.losses_K)
        np.testing.assert_allclose(rows.gap_stderr, curve.gap_stderrs_K)
        np.testing.assert_allclose(rows.full_loss, curve.full_loss)
        np.testing.assert_allclose(rows.w_error, w_error(np.arange(24, 0, -1.0))[[3, 7, 15, 23]])
    rows = accuracies[accuracies.task == "next token"]
    assert (rows.curve.unique().tolist(), rows["rank"].tolist()) == (["trained"], RANKS.tolist())
    assert rows.value.tolist() == [0.04, 0.08, 0.16, 0.32]
    assert rows.stderr.isna().tolist() == [False, True, True, True]
    rows = accuracies[accuracies.task == "piqa"]
    assert rows[["curve", "rank", "value"]].values.tolist() == [["truncated", 8, 0.6]]
    assert losses.curve.tolist()[0] == "trained"
    losses, _ = drawn(monkeypatch, tmp_path / "tree", "weighted")
    assert losses.curve.drop_duplicates().tolist() == ["weighted", "trained", "truncated"]


def test_figure_names_what_differs(tmp_path, monkeypatch):
    for step, corpus in ((10, "sample"), (20, "sample"), (20, "pile")):
        write_rank_result(tmp_path / f"tree/{step}{corpus}", step, arrays_of(trained=False), corpus=corpus)
    losses, accuracies = drawn(monkeypatch, tmp_path / "tree")
    assert set(losses.model) == {f"neox-w24, {more}" for more in ("step10, sample", "step20, sample", "step20, pile")}
    assert set(losses.curve) == {"weighted", "truncated"}
    assert accuracies.empty

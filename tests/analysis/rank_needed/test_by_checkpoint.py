"""The head rank that each checkpoint of a tree needs: which arrays and which corpus are its own."""

from __future__ import annotations

import json

import pytest
from rank_results import arrays_of, values_of, write_rank_result
from safetensors.numpy import save_file

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.rank_needed import RankCurve
from lmsat_plugin.results import Results


def test_arrays_elsewhere_and_another_corpus_in_the_file(tmp_path):
    """Plain lm_eval names the arrays by their whole path, and notes each corpus by itself."""
    save_file(arrays_of(), tmp_path / "elsewhere.safetensors")
    write_rank_result(tmp_path / "results", 1, {})
    file = tmp_path / "results" / "results_1.json"
    content = json.loads(file.read_text())
    note = content["config"]["lmsat"] | {"arrays": str(tmp_path / "elsewhere.safetensors")}
    content["config"]["lmsat"] = [{**note, "probes": {"loss": {}}, "arrays": "nowhere.safetensors"}, note]
    file.write_text(json.dumps(content))
    [one] = values_of(tmp_path / "results")
    assert one["curve"] == "trained"
    assert one["full_loss"] == pytest.approx(RankCurve.from_arrays(arrays_of()).full_loss)


def test_share_of_the_same_corpus_with_other_settings(tmp_path):
    """Settings of the heads, which tell their results apart, are none of the gradient's."""
    share = {"lmsat_gradient_bottleneck": {"suppressed_norm_share,none": 0.75}}
    write_rank_result(tmp_path / "a", 1, arrays_of(), settings={"train_tokens": 1000}, more=share)
    write_rank_result(tmp_path / "b", 1, arrays_of(), settings={"train_tokens": 2000})
    write_rank_result(tmp_path / "c", 1, arrays_of(), corpus="pile")
    found = values_of(tmp_path)
    assert {(one["corpus"], one["variant"]): one["suppressed_norm_share"] for one in found} == {
        ("sample", "train_tokens=1000"): 0.75,
        ("sample", "train_tokens=2000"): 0.75,
        ("pile", None): None,
    }


def test_analyses_are_of_the_last_checkpoint_on_the_corpus_that_was_chosen(tmp_path):
    for step, corpus in ((10, "sample"), (20, "sample"), (30, "pile")):
        write_rank_result(tmp_path / f"{step}{corpus}", step, arrays_of(), corpus=corpus)
    [found] = Analyses.of(Results.read(tmp_path), ["sample"]).ranks
    assert (found.values["revision"], found.values["corpus"]) == ("step20", "sample")

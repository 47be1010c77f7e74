"""Accuracies by head rank: which head a result was measured with, and which accuracy counts."""

from __future__ import annotations

import json
import logging

import torch
from rank_results import scores_of, values_of, write_rank_result, write_scores

from lmsat_plugin.model.head_files import save_restricted_head


def test_accuracies_of_a_sweep_over_ranks(tmp_path):
    """All entries are one checkpoint, which the sweep knows under another name for each head."""
    folder = tmp_path / "runs" / "neox"
    for rank in (4, 16):
        args = {"pretrained": str(folder / "step10"), "head_rank": rank}
        found = {"quiz": {"acc,none": rank / 100, "acc_stderr,none": 0.01, "acc_norm,none": 1}}
        write_scores(tmp_path / f"out/r{rank}/results_1.json", args, found, name=f"neox rank {rank}")
    own = {"quiz": {"acc,none": 0.5, "acc_stderr,none": "N/A"}, "other": {"acc,none": 0.1}}
    write_scores(
        tmp_path / "out/own/results_1.json", {"pretrained": str(folder / "step10")}, own, name="my neox", width=24
    )
    [one] = values_of(tmp_path / "out")
    assert [one[key] for key in ("model", "revision", "step", "hidden_size", "curve", "ranks")] == [
        *("my neox", "step10", 10, 24),
        *(None, []),
    ]
    # A task that was run with the model's own head alone says nothing of ranks.
    quiz = {"task": "quiz", "variant": None, "metric": "acc"}
    assert one["downstream"] == [
        {**quiz, "curve": "truncated", "rank": 4, "value": 0.04, "stderr": 0.01},
        {**quiz, "curve": "truncated", "rank": 16, "value": 0.16, "stderr": 0.01},
        {**quiz, "curve": None, "rank": 24, "value": 0.5, "stderr": None},
    ]
    [one] = values_of(tmp_path / "out" / "r4")
    assert (one["model"], one["hidden_size"]) == ("neox", None)


def test_accuracies_of_plain_lm_eval(tmp_path, caplog):
    """Arguments as text, heads from files, and a width that nothing states."""
    arguments = {
        "head_rank=8": 0.1,
        "head=heads/a__b__main__rank_32.safetensors": 0.2,
        "head=heads/a__b__main__truncated_rank_32.safetensors": 0.3,
        "revision=main": 0.4,
        "head=mine.safetensors": 0.5,
        "head_rank=8,head=x__rank_16.safetensors": 0.6,
        "head_rank=many": 0.7,
    }
    for number, (args, value) in enumerate(arguments.items()):
        file = tmp_path / f"results_{number}.json"
        write_scores(file, f"pretrained=a/b,{args},dtype=float32", {"piqa": {"acc,none": value}})
    with caplog.at_level(logging.WARNING):
        [one] = values_of(tmp_path)
    assert (one["model"], one["revision"], one["hidden_size"]) == ("a/b", "main", None)
    assert scores_of(one) == {
        ("piqa", "acc", "truncated", 8): 0.1,
        ("piqa", "acc", "trained", 32): 0.2,
        ("piqa", "acc", "weighted", 32): 0.3,
        ("piqa", "acc", None, None): 0.4,
    }
    assert caplog.text.count("Left out") == 3
    assert "results_4.json: head=mine.safetensors does not say a rank" in caplog.text
    assert "head=x__rank_16.safetensors and head_rank=8 does not" in caplog.text


def test_ranks_of_heads_whose_files_have_other_names(tmp_path):
    """From the result file itself; else from the head's file, if that is there, of this version or an earlier one."""
    for name, details in {
        "trained": {"kind": "trained"},
        "weighted": {"kind": "weighted"},
        "old_trained_rank_9": {"init": "svd"},
        "old_truncated_rank_9": {},
    }.items():
        rank = 3 + len(name)
        save_restricted_head(tmp_path / f"{name}.safetensors", torch.zeros(9, rank), torch.zeros(rank, 24), details)
    heads = {
        "gone.safetensors": ({"rank": 5, "kind": "trained"}, ("trained", 5)),
        "gone_truncated_rank_7.safetensors": ({"rank": 6, "kind": "weighted"}, ("weighted", 6)),
        "gone__truncated_rank_8.safetensors": ({"rank": "many", "kind": "trained"}, ("weighted", 8)),
        "trained.safetensors": (None, ("trained", 10)),
        "weighted.safetensors": (None, ("weighted", 11)),
        "old_trained_rank_9.safetensors": (None, ("trained", 21)),
        "old_truncated_rank_9.safetensors": (None, ("weighted", 23)),
    }
    for number, (name, (recorded, _)) in enumerate(heads.items()):
        file = tmp_path / f"out/results_{number}.json"
        write_scores(file, {"pretrained": "a/b", "head": str(tmp_path / name)}, {"piqa": {"acc,none": 0.1}})
        content = json.loads(file.read_text())
        content["config"]["lmsat_head"] = recorded
        file.write_text(json.dumps(content))
    [checkpoint] = values_of(tmp_path / "out")
    assert {key[-2:] for key in scores_of(checkpoint)} == {expected for _, expected in heads.values()}


def test_which_accuracy_of_a_task(tmp_path):
    found = {
        "norm": {"acc_norm,none": 0.1, "exact_match,none": 0.9},
        "math": {"exact_match,strict": 0.2, "exact_match,loose": 0.3, "exact_match_stderr,loose": 0.01},
        "lmsat_loss": {"loss,none": 3.0, "acc,none": 0.9},
        "words": {"perplexity,none": 9.0},
        "all": {"acc,none": 0.4},
        "part": {"acc,none": 0.5},
    }
    write_scores(
        tmp_path / "results_1.json",
        {"pretrained": "a/b", "head_rank": 4},
        found,
        group_subtasks={"all": ["part"], "norm": [], "tag": ["math"], "odd": 3},
    )
    [one] = values_of(tmp_path / "results_1.json")
    assert {key[:-2]: value for key, value in scores_of(one).items()} == {
        ("norm", "acc_norm"): 0.1,
        ("math", "filter=strict", "exact_match"): 0.2,
        ("math", "filter=loose", "exact_match"): 0.3,
        ("all", "acc"): 0.4,
    }


def test_settings_tell_accuracies_apart_and_the_newest_stands(tmp_path):
    args = {"pretrained": "a/b", "head_rank": 4}
    for date, value in ((2, 0.2), (1, 0.1)):
        write_scores(tmp_path / f"{date}/results_1.json", {**args, "arrays": "x"}, {"piqa": {"acc,none": value}}, date)
    [one] = values_of(tmp_path)
    assert scores_of(one) == {("piqa", "acc", "truncated", 4): 0.2}
    few = {"piqa": {"task": "piqa", "num_fewshot": 5}}
    write_scores(tmp_path / "3/results_1.json", args, {"piqa": {"acc,none": 0.3}}, 3, configs=few)
    write_scores(tmp_path / "4/results_1.json", {**args, "head_rank": 8}, {"piqa": {"acc,none": 0.4}}, 4)
    write_scores(tmp_path / "5/results_1.json", {"pretrained": "a/b"}, {"piqa": {"acc,none": 0.5}}, 5)
    other = {**args, "pretrained": "c/d"}
    write_scores(tmp_path / "6/results_1.json", other, {"piqa": {"acc,none": 0.6}}, 6)
    one, another = values_of(tmp_path)
    assert scores_of(one) == {
        ("piqa", "num_fewshot=0", "acc", "truncated", 4): 0.2,
        ("piqa", "num_fewshot=0", "acc", "truncated", 8): 0.4,
        ("piqa", "num_fewshot=0", "acc", None, None): 0.5,
        ("piqa", "num_fewshot=5", "acc", "truncated", 4): 0.3,
    }
    assert scores_of(another) == {("piqa", "acc", "truncated", 4): 0.6}


def test_arrays_that_are_lost_leave_the_accuracies(tmp_path, caplog):
    write_rank_result(tmp_path, 1, {})
    write_scores(tmp_path / "results_2.json", "pretrained=a/b,head_rank=8", {"piqa": {"acc,none": 0.6}})
    with caplog.at_level(logging.WARNING):
        [one] = values_of(tmp_path)
    assert (one["model"], one["corpus"]) == ("a/b", None)
    assert "results_1.json: the arrays" in caplog.text

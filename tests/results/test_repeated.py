"""The same result made twice is one, the newest; a line counts what was measured again."""

from __future__ import annotations

import logging

import pytest
from result_files import new, ours, write

from lmsat_plugin import Results, load_results
from lmsat_plugin.results import cache

ARGS = {"pretrained": "a/b", "revision": "step1"}
SHA = "c" * 40


def made(value: float, date: float, args=ARGS, model="hf", **config) -> dict:
    return new({"piqa": {"acc,none": value}}, args, date, {"model": model, **config})


def test_two_models_of_lm_eval_with_and_without_commit_and_type(tmp_path):
    notes = {"dtype": "float32", "commit": SHA, "model": {"n_params": 14}}
    write(tmp_path / "1/results_1.json", made(0.5, 1.70e9, model_sha="", model_dtype="torch.float32"))
    write(tmp_path / "2/results_1.json", made(0.25, 1.73e9))
    write(tmp_path / "3/results_1.json", made(0.5, 1.71e9, model="lmsat", model_sha=SHA, lmsat=notes))
    write(tmp_path / "4/results_1.json", made(0.5, 1.72e9, args="pretrained=a/b,revision=step1,dtype=float32"))
    read = Results.read(tmp_path)
    assert [(row.value, row.path) for row in read.table.itertuples()] == [(0.25, "2/results_1.json")]
    assert read.note == (
        "3 of 4 values were measured again with the same settings, 3 of them with another outcome: "
        "the newest of each is taken; --all of lmsat results shows the others"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"args": {**ARGS, "head_rank": 4}},
        {"args": {**ARGS, "dtype": "bfloat16"}},
        {"args": {**ARGS, "revision": "step2"}},
        {"limit": 10},
    ],
)
def test_other_settings_are_other_results(tmp_path, other):
    write(tmp_path / "1/results_1.json", made(0.5, 1.7e9, args={**ARGS, "dtype": "float32"}))
    write(tmp_path / "2/results_1.json", made(0.25, 1.8e9, **other))
    read = Results.read(tmp_path)
    assert (sorted(read.table.value), read.note) == ([0.25, 0.5], None)


def test_nothing_is_said_of_what_was_measured_once(tmp_path):
    write(tmp_path / "results_1.json", ours(2.5))
    write(tmp_path / "results_2.json", made(0.5, 1.7e9))
    assert Results.read(tmp_path).note is None


def test_the_line_is_said_again_when_the_tree_is_read_from_what_was_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache, "WORTHWHILE", 1)
    monkeypatch.setattr(cache, "_TICK_NS", 0)
    for index in range(3):
        write(tmp_path / f"{index}/results_1.json", made(0.5, 1.7e9 + index))
    for _ in range(3):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert len(load_results(tmp_path)) == 1
        assert [text for text in caplog.messages if text.startswith("2 of 3 values were measured again")]
    assert (tmp_path / cache.TABLE).exists()
    assert len(load_results(tmp_path, all_results=True)) == 3

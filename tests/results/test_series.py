"""Series of a table: runs, stages that begin again, replicates, the axis, and checkpoints that contradict."""

from __future__ import annotations

import logging

import pytest
import series_trees as trees

from lmsat_plugin.results import Results, load_results
from lmsat_plugin.results.series import data_seen, in_series, labelled, place_in_words, short_count


def places(root) -> dict[str, list[float]]:
    """Return the places of the losses of each series of a tree."""
    table = labelled(load_results(root))
    rows = table[(table.task == "lmsat_loss") & (table.metric == "loss")]
    return {str(name): sorted(own["at"]) for name, own in rows.groupby("model")}


def test_a_stage_that_begins_again_is_a_series_of_its_own(tmp_path):
    trees.write_olmo2(tmp_path, "OLMo-2")
    ingredients = {f"OLMo-2 (stage2, ingredient{number})": [1000, 2000, 3000] for number in (1, 2, 3)}
    found = places(tmp_path)
    assert found.pop("OLMo-2 (main)") == pytest.approx([float("nan")], nan_ok=True)
    assert found == {"OLMo-2": list(range(1000, 21000, 1000)), **ingredients}
    table = labelled(load_results(tmp_path))
    own = table[table.model == "OLMo-2 (stage2, ingredient2)"]
    assert set(own.group) == {"OLMo-2 (stage2)"}
    # Stage 1 ended after 80B tokens.
    assert sorted(data_seen(own)) == [85 * trees.B, 90 * trees.B, 95 * trees.B]
    assert sorted(own.tokens) == [5 * trees.B, 10 * trees.B, 15 * trees.B]


def test_stages_that_count_on_are_one_series(tmp_path):
    for stage, steps in (("stage1", (40, 80)), ("stage2", (120, 160)), ("stage3", (200,)), ("lc-4k-to-32k", (4, 8))):
        for step in steps:
            trees.write_checkpoint(tmp_path, "org/SmolLM3", f"{stage}-step-{step}000", 3.0)
    assert places(tmp_path) == {
        "org/SmolLM3": [40000, 80000, 120000, 160000, 200000],
        "org/SmolLM3 (lc-4k-to-32k)": [4000, 8000],
    }


def test_runs_in_one_repository_are_replicates(tmp_path):
    trees.write_datadecide(tmp_path, "org/DD")
    found = places(tmp_path)
    assert {name: len(own) for name, own in found.items()} == {
        "org/DD (default)": 40, "org/DD (small-aux-2)": 10, "org/DD (large-aux-2)": 10,
    }  # fmt: skip
    assert set(labelled(load_results(tmp_path)).group) == {"org/DD"}


def test_a_run_that_is_the_only_one_adds_nothing(tmp_path):
    trees.write_checkpoint(tmp_path, "EleutherAI/pythia-410m-seed3", "step1000", 3.0)
    trees.write_checkpoint(tmp_path, "org/DD", "step1000-seed-default", 3.0)
    table = labelled(load_results(tmp_path))
    assert set(table.model) == set(table.group) == {"EleutherAI/pythia-410m-seed3", "org/DD"}


def test_the_axis_is_what_the_names_count(tmp_path):
    trees.write_babylm(tmp_path, "words")
    trees.write_baichuan(tmp_path, "tokens")
    trees.write_amber(tmp_path, "order")
    for name in ("kestrel", "deeper-starling"):
        trees.write_checkpoint(tmp_path, "nothing", name, 3.0)
    for name in ("8a3f0c12d", "77b3f0c12e", "fp16", "fp8"):
        trees.write_checkpoint(tmp_path, "numbers without order", name, 3.0)
    table = in_series(load_results(tmp_path))
    axes = {model: set(own.axis.dropna()) for model, own in table.groupby("model")}
    assert axes == {
        "words": {"words"}, "tokens": {"tokens"}, "order": {"order"},
        "nothing": set(), "numbers without order": set(),
    }  # fmt: skip
    last = table[table["at"].notna()].sort_values("at").groupby("model").tail(1).set_index("model")
    assert last.revision.to_dict() == {"words": "chck_100M", "tokens": "train_02420B", "order": "ckpt_300"}
    assert last["at"].to_dict() == {"words": 1e8, "tokens": 2.42e12, "order": 15}


@pytest.mark.parametrize(
    ("contents", "left", "warned"),
    [
        # Different weights under two names.
        ({"step1000": (3.0, "a"), "stage1-step1000": (3.1, "b"), "step2000": (2.9, "c")}, {"step2000"}, True),
        # The same weights, or the same values, under two names: one of them is enough.
        ({"step1000": (3.0, "a"), "checkpoint-1000": (3.1, "a")}, None, False),
        ({"step1000": (3.0, "a"), "checkpoint-1000": (3.0, "b")}, None, False),
    ],
)
def test_two_names_for_one_step(tmp_path, caplog, contents, left, warned):
    for name, (loss, sha) in contents.items():
        trees.write_checkpoint(tmp_path, "m", name, loss, sha=sha)
    with caplog.at_level(logging.WARNING):
        results = Results.read(tmp_path)
        found = results.series
        assert results.series is found
    said = [record.message for record in caplog.records]
    if warned:
        assert set(found.revision) == left
        (sentence,) = said
        assert "m: stage1-step1000 and step1000 at step 1,000 have different values" in sentence
    else:
        assert len(found) == 1
        assert said == []


def test_two_measurements_of_one_checkpoint_that_do_not_overlap_stay(tmp_path):
    trees.write_checkpoint(tmp_path, "m", "step1000", 3.0, sha="a")
    trees.write_checkpoint(tmp_path, "m", "checkpoint-1000", 3.0, acc=0.5)
    table = in_series(load_results(tmp_path))
    assert sorted(table.metric) == ["acc", "loss"]


def test_a_table_of_anyone_has_series_too():
    import pandas as pd

    table = pd.DataFrame({"model": ["a", "a"], "step": [1, 2], "loss": [3.0, 2.0]})
    assert in_series(table)["at"].tolist() == [1, 2]
    assert labelled(table).model.tolist() == ["a", "a"]
    assert labelled(labelled(table)).equals(labelled(table))


def test_places_in_words():
    assert place_in_words("step", 12000) == "step 12,000"
    assert place_in_words("tokens", 2.2e11) == "220B tokens"
    assert place_in_words("words", 10**7) == "10M words"
    assert place_in_words("order", 3, "ckpt_012") == "ckpt_012"
    assert [short_count(number) for number in (999, 1500, 1_234_567, 15 * 10**12)] == [
        "999",
        "1.5k",
        "1,234,567",
        "15T",
    ]

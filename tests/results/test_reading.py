"""Result files of any version, and broken ones, against files written here by hand."""

from __future__ import annotations

import io
import json
import logging
import math

import pandas as pd
import pytest
from result_files import new, old, ours, write

from lmsat_plugin.results import load_results


def load_one(tmp_path, content, name="results_1.json", **options) -> pd.Series:
    table = load_results(write(tmp_path / name, content), **options)
    assert len(table) == 1
    return table.iloc[0]


def test_old_schema(tmp_path):
    write(tmp_path / "160m_step1000.json", old())
    table = load_results(tmp_path, tokens_per_step=2_097_152).set_index("metric")
    assert sorted(table.index) == ["acc", "ppl"]
    ppl = table.loc["ppl"]
    assert (ppl.model, ppl.revision, ppl.step) == ("EleutherAI/pythia-v1.1-160m", "step1000", 1000)
    assert ppl.tokens == 2_097_152_000
    assert (ppl.value, ppl.stderr, ppl["filter"], ppl.num_fewshot) == (2591.5, 111.2, "none", 0)
    assert ppl.higher_is_better is False or not ppl.higher_is_better
    assert table.loc["acc"].higher_is_better
    assert math.isnan(table.loc["acc"].stderr)
    assert ppl.path == "160m_step1000.json"
    assert pd.isna(ppl.date)
    assert ppl.commit is None
    assert ppl.corpus is None
    assert (ppl.n_params, ppl.n_params_from_name) == (160_000_000, True)
    assert pd.isna(ppl.n_samples)


def test_new_schema(tmp_path):
    gsm8k = {
        "alias": "gsm8k",
        "exact_match,strict-match": 0.25,
        "exact_match_stderr,strict-match": 0.01,
        "exact_match,flexible-extract": 0.5,
        "exact_match_stderr,flexible-extract": "N/A",
        "passed,none": True,
        "nested,none": {"a": 1},
        "shaky,none": "N/A",
        "weird,none": math.nan,
    }
    content = new(
        {"gsm8k": gsm8k},
        config={"model_num_parameters": 14_067_712, "model_sha": "abc", "model_revision": "main"},
        **{"n-shot": {"gsm8k": 8}, "n-samples": {"gsm8k": {"original": 1319, "effective": 100}}},
        higher_is_better={"gsm8k": {"exact_match": True, "weird": None}},
    )
    write(tmp_path / "EleutherAI__pythia-14m/results_2024-05-01T12-00-00.000001.json", content)
    table = load_results(tmp_path)
    rows = {(row.metric, row["filter"]): row for _, row in table.iterrows()}
    assert set(rows) == {("exact_match", "strict-match"), ("exact_match", "flexible-extract"), ("weird", "none")}
    row = rows["exact_match", "strict-match"]
    assert (row.value, row.stderr, row.num_fewshot, row.n_samples) == (0.25, 0.01, 8, 100)
    assert (row.n_params, row.commit, row.revision) == (14_067_712, "abc", "step1000")
    assert row.higher_is_better
    assert row.date == pd.Timestamp("2023-11-14 22:13:20", tz="UTC")
    assert math.isnan(rows["exact_match", "flexible-extract"].stderr)
    assert math.isnan(rows["weird", "none"].value)
    assert pd.isna(rows["weird", "none"].higher_is_better)


def test_groups_appear_once(tmp_path):
    group = {" ": " ", "alias": "mmlu", "acc,none": 0.25, "acc_stderr,none": 0.01, "sample_len": 7}
    content = new({"mmlu": group, "mmlu_law": {"alias": " - law", "acc,none": 0.5}}, groups={"mmlu": group})
    write(tmp_path / "results_1.json", content)
    table = load_results(tmp_path, all_results=True)
    assert list(table.task) == ["mmlu", "mmlu_law"]
    assert list(table.n_samples) == [7, pd.NA]


def test_measurements_of_lmsat(tmp_path):
    checkpoint = {
        **{"model": "series/tiny", "revision": "stage1-step5000-tokens21B", "commit": "c0ffee"},
        **{"step": 5000, "tokens": 21_000_000_001},
    }
    row = load_one(tmp_path, ours(3.5, checkpoint=checkpoint, args={"pretrained": "/cache/xyz"}))
    assert (row.model, row.revision, row.commit) == ("series/tiny", "stage1-step5000-tokens21B", "c0ffee")
    assert (row.step, row.tokens) == (5000, 21_000_000_001)
    assert (row.corpus, row.task, row.metric, row.n_samples) == ("sample", "lmsat_loss", "loss", 22)
    assert (row.value, row.stderr) == (3.5, 0.25)
    assert (row.n_params, row.n_params_non_embedding, row.hidden_size, row.vocab_size) == (1000, 700, 48, 576)
    assert not row.higher_is_better


def test_one_run_may_have_several_corpora(tmp_path):
    content = ours(3.5)
    note = content["config"]["lmsat"]
    content["results"]["lmsat_anisotropy"] = {"anisotropy_last,none": 0.5}
    content["results"]["piqa"] = {"acc,none": 0.75}
    other = {**note, "probes": {"anisotropy": {}}, "corpus": {"corpus": "pile", "documents": 9}}
    content["config"]["lmsat"] = [note, other]
    write(tmp_path / "results_1.json", content)
    table = load_results(tmp_path).set_index("task")
    assert table.corpus.to_dict() == {"lmsat_loss": "sample", "lmsat_anisotropy": "pile", "piqa": None}
    assert table.n_samples["lmsat_anisotropy"] == 9


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results_2.json", json.dumps(new())[:200]),
        ("160m_step3.json", json.dumps(old())[:60]),
        ("results_2.json", ""),
        ("results_2.json", "[1, 2]"),
        ("results_2.json", '{"results": 5}'),
        ("160m_step3.json", '{"results": {"piqa": 1}, "versions": {}}'),
        ("results_2.json", '{"results": {"a": ' + "[" * 100_000),
        ("results_2.json", '{"results": {"piqa": {"acc,none": ' + "1" * 5000 + "}}}"),
    ],
)
def test_broken_files_are_skipped_with_a_sentence(tmp_path, caplog, name, content):
    write(tmp_path / "results_1.json", new())
    broken = write(tmp_path / name, content)
    assert list(load_results(tmp_path).path) == ["results_1.json"]
    [record] = caplog.records
    assert (record.levelno, record.name.split(".")[0]) == (logging.WARNING, "lmsat_plugin")
    assert str(broken) in record.getMessage()
    assert "restore or remove it" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_text_in_place_of_a_number_is_left_out_with_a_sentence(tmp_path, caplog):
    write(tmp_path / "results_1.json", new({"piqa": {"acc,none": "0.5 or so", "acc_norm,none": 0.25}}))
    assert list(load_results(tmp_path).metric) == ["acc_norm"]
    [record] = caplog.records
    assert "0.5 or so" in record.getMessage()


def test_nonsense_anywhere_stops_nothing(tmp_path, caplog):
    """Each part of a file in turn is replaced by what does not belong there."""
    # The warnings hold halves of characters, which a test process cannot send to the one that collects reports.
    caplog.set_level(logging.CRITICAL)
    whole = ours(3.5, checkpoint={"step": 1, "model": "m", "revision": "r"}, supersedes={"x.json": ["piqa"]})
    whole.update(versions={}, groups={}, **{"n-shot": {}})
    paths = [[]]
    for path in paths:
        part = whole
        for key in path:
            part = part[key]
        if isinstance(part, dict):
            paths += [[*path, key] for key in part]
    bad = (None, 5, -1e400, 10**400, "\ud800", "x" * 9999, "step" + "9" * 9999, [], [[1]], {}, {"a": {"b": []}}, True)
    write(tmp_path / "good" / "results_1.json", new())
    for path in paths[1:]:
        for number, value in enumerate(bad):
            changed = json.loads(json.dumps(whole))
            part = changed
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = value
            write(tmp_path / "bad" / f"results_{number}.json", changed)
        for table in (load_results(tmp_path), load_results(tmp_path, all_results=True)):
            assert "EleutherAI/pythia-14m" in set(table.model)
            table.to_csv(io.StringIO())

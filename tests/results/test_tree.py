"""Trees of result files as one table: which files and values count, their order, and a plain loop over real ones."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import PYTHIA_EVALS
from result_files import new, old, ours, write
from result_trees import Made, add_arrays, write_tree

from lmsat_plugin.analysis import find_context, find_saturation
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results, load_results
from lmsat_plugin.results.table import COLUMNS

INTEGERS = (
    "step",
    "tokens",
    "words",
    "total_step",
    "total_tokens",
    "n_params",
    "n_params_non_embedding",
    "hidden_size",
    "vocab_size",
)


def test_columns_and_types(tmp_path):
    write(tmp_path / "a/results_1.json", new())
    write(tmp_path / "b/160m_step1000.json", old())
    table = load_results(tmp_path)
    assert tuple(table.columns) == COLUMNS
    assert (
        *("model", "variant", "run", "stage", "revision", "commit", "step", "tokens", "words"),
        *("total_step", "total_tokens", "n_params", "n_params_from_name", "n_params_non_embedding", "hidden_size"),
        *("vocab_size", "corpus", "task", "num_fewshot", "metric", "filter"),
        *("value", "stderr", "n_samples", "higher_is_better", "date", "path"),
    ) == COLUMNS
    assert {str(table[name].dtype) for name in (*INTEGERS, "num_fewshot", "n_samples")} == {"Int64"}
    assert table.value.dtype == table.stderr.dtype == float
    assert str(table.higher_is_better.dtype) == "boolean"
    assert str(table.date.dtype) == "datetime64[us, UTC]"
    assert list(table.index) == [0, 1, 2]


def test_mixed_trees(tmp_path, caplog):
    """What else lies in a run's folder is passed over in silence."""
    write(tmp_path / "old/160m_step1000.json", old())
    write(tmp_path / "new/results_1.json", new())
    for name in ("config.json", "trainer_state.json", "failures.json", "vocab.json"):
        write(tmp_path / "run" / name, "not read")
    write(tmp_path / "run/samples_piqa_2024.jsonl", '{"results": 1}')
    write(tmp_path / "run/results_1.json.quarantined", new())
    write(tmp_path / "run/other.json", {"results": [1, 2]})
    write(tmp_path / "run/list.json", "[]")
    write(tmp_path / "run/comments.json", "// no JSON\n{}")
    write(tmp_path / ".hidden/results_1.json", new(args={"pretrained": "hidden"}))
    write(tmp_path / "run/.results_1.json", new(args={"pretrained": "hidden"}))
    (tmp_path / "run" / "folder.json").mkdir()
    (tmp_path / "run" / "loop").symlink_to(tmp_path)
    (tmp_path / "run" / "nowhere.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "run" / "results_pipe.json")
    table = load_results(tmp_path)
    assert list(table.path) == ["new/results_1.json", *["old/160m_step1000.json"] * 2]
    assert not caplog.records


def test_links_are_followed(tmp_path):
    write(tmp_path / "elsewhere/results_1.json", new())
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(load_results(tmp_path / "tree").path) == ["link/results_1.json"]


def test_the_newest_stands(tmp_path):
    write(tmp_path / "z/results_1.json", new({"piqa": {"acc,none": 0.1, "acc_norm,none": 0.7}}, date=1.0e9))
    write(tmp_path / "a/results_1.json", new({"piqa": {"acc,none": 0.2}}, date=1.1e9))
    write(tmp_path / "b/results_1.json", new({"piqa": {"acc,none": 0.3}}, date=1.1e9))
    table = load_results(tmp_path)
    assert list(zip(table.metric, table.value, strict=True)) == [("acc", 0.3), ("acc_norm", 0.7)]
    assert sorted(load_results(tmp_path, all_results=True).value) == [0.1, 0.2, 0.3, 0.7]
    # Other examples in the prompt are another measurement.
    write(tmp_path / "d/results_1.json", new({"piqa": {"acc,none": 0.5}}, **{"n-shot": {"piqa": 1}}))
    assert sorted(load_results(tmp_path).value) == [0.3, 0.5, 0.7]
    # A result without a commit is of the one commit that others state, and of none of several.
    write(tmp_path / "e/results_1.json", new({"piqa": {"acc,none": 0.4}}, date=1.2e9, config={"model_sha": "one"}))
    assert sorted(load_results(tmp_path).value) == [0.4, 0.5, 0.7]
    write(tmp_path / "f/results_1.json", new({"piqa": {"acc,none": 0.6}}, config={"model_sha": "other"}))
    assert sorted(load_results(tmp_path).value) == [0.3, 0.4, 0.5, 0.6, 0.7]


def test_superseded_tasks_are_left_out(tmp_path):
    first = ours(3.5, date=2e9)
    first["results"]["piqa"] = {"acc,none": 0.5}
    write(tmp_path / "a/results_1.json", first)
    write(tmp_path / "b/results_1.json", ours(9.5, args={"pretrained": "other/model"}))
    # Older, and of another corpus: nothing but its own word says that it replaces the first.
    later = ours(3.25, date=1e9, corpus={"corpus": "pile"}, supersedes={"results_1.json": ["lmsat_loss"]})
    write(tmp_path / "a/results_2.json", later)
    assert sorted(load_results(tmp_path).value) == [0.5, 3.25, 9.5]
    assert sorted(load_results(tmp_path, all_results=True).value) == [0.5, 3.25, 3.5, 9.5]


def test_order(tmp_path):
    for number, revision in enumerate(("main", "step10", "step9", "step100")):
        write(tmp_path / f"{number}/results_1.json", new(args={"pretrained": "a/b", "revision": revision}))
    write(tmp_path / "results_0.json", ours(1.0, args={"pretrained": "a/b", "revision": "step0"}))
    table = load_results(tmp_path)
    assert list(table.revision) == ["step0", "step9", "step10", "step100", "main"]


def test_nothing_to_read_is_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "missing", write(tmp_path / "x" / "config.json", "{}")):
        with pytest.raises(LmsatError) as error:
            load_results(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_results_without_any_number_are_told_from_none(tmp_path):
    write(tmp_path / "results_1.json", new({"lmsat-sharpness": {"critical_sharpness,none": None}}))
    with pytest.raises(LmsatError, match="hold no number"):
        Results.read(tmp_path)


def test_neither_torch_nor_lm_eval_is_imported(tmp_path):
    write(tmp_path / "results_1.json", new())
    code = (
        "import sys; from lmsat_plugin import load_results; load_results(sys.argv[1]); "
        "print(*[name for name in ('torch', 'lm_eval', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.skipif(not PYTHIA_EVALS.is_dir(), reason="needs EleutherAI's published results")
def test_real_files_lose_nothing():
    expected = {}
    for path in PYTHIA_EVALS.rglob("*.json"):
        for task, entry in json.loads(path.read_text()).get("results", {}).items():
            for key, value in entry.items():
                if not key.endswith("_stderr"):
                    expected[path.relative_to(PYTHIA_EVALS).as_posix(), task, key] = (value, entry.get(f"{key}_stderr"))
    table = load_results(PYTHIA_EVALS, tokens_per_step=2_097_152)
    assert len(table) == len(expected) > 10_000
    assert table.path.nunique() == 81
    for row in table.itertuples():
        value, stderr = expected[row.path, row.task, row.metric]
        assert row.value == value
        assert row.stderr == stderr or (stderr is None and math.isnan(row.stderr))
    assert set(table.model) == {f"EleutherAI/pythia-v1.1-{size}" for size in ("70m", "160m", "410m")}
    assert not table.step.isna().any()
    assert (table.tokens == table.step * 2_097_152).all()
    assert table.groupby("model").step.nunique().tolist() == [27] * 3
    assert all(f"_{row.revision}.json" in row.path for row in table.itertuples())
    file = json.loads((PYTHIA_EVALS / "pythia-160m/zero-shot/160m_step143000.json").read_text())
    lambada = table[
        (table.model == "EleutherAI/pythia-v1.1-160m") & (table.step == 143_000) & (table.task == "lambada_openai")
    ].set_index("metric")
    assert lambada.value.to_dict() == {name: file["results"]["lambada_openai"][name] for name in ("acc", "ppl")}
    assert lambada.higher_is_better.to_dict() == {"acc": True, "ppl": False}


def test_each_file_is_parsed_once(tmp_path, monkeypatch):
    """Whatever is asked of one tree: its table, its parts, arrays of several tasks, analyses, notes."""
    models = [Made("a", 10**7), Made("b", 10**8)]
    write_tree(tmp_path, models, steps=range(1000, 12000, 1000))
    add_arrays(tmp_path, documents=6, window=64)
    read: list[Path] = []
    parsed: list[bytes] = []
    read_bytes, loads = Path.read_bytes, json.loads

    def count_reads(path: Path) -> bytes:
        if path.is_relative_to(tmp_path) and path.suffix == ".json":
            read.append(path)
        return read_bytes(path)

    def count_parsing(text, **options):
        if b'"results"' in (text if isinstance(text, bytes) else text.encode()):
            parsed.append(text)
        return loads(text, **options)

    monkeypatch.setattr(Path, "read_bytes", count_reads)
    monkeypatch.setattr(json, "loads", count_parsing)
    results = Results.read(tmp_path)
    assert len(results.files) == len(read) == len(parsed) == 22
    for path in results.files:
        assert len(results.arrays(path, "lmsat_head", "head/singular_values")["head/singular_values"]) == 12
        assert set(results.arrays(path, "lmsat_loss", "loss/by_document", "loss/by_position")) == {
            *("loss/by_document", "loss/by_document_tokens", "loss/by_position", "loss/by_position_tokens")
        }
        assert results.notes(path, "lmsat_loss")["checkpoint"]["model"] in ("a", "b")
        assert results.notes(path, "piqa") == {}
    assert {one.sampling for one in find_saturation(results, repetitions=100)} == {"documents"}
    assert len(find_context(results.select(["held-out"]))) == 22
    assert len(read) == len(parsed) == 22

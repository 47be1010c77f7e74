"""Result files of any version as one table: against files written here by hand and a plain loop over real ones."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from places import PYTHIA_EVALS

from lmsat_plugin import LmsatError, load_results
from lmsat_plugin.cli.main import main
from lmsat_plugin.results.table import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

REAL = PYTHIA_EVALS
real_data = pytest.mark.skipif(not REAL.is_dir(), reason="needs EleutherAI's published results")
OLD = "use_accelerate=True,pretrained=EleutherAI/pythia-v1.1-160m,revision=step1000"
INTEGERS = ("step", "tokens", "n_params", "n_params_non_embedding", "hidden_size", "vocab_size")


def old(args=OLD, **results) -> dict:
    """Return a file as lm-eval wrote it in 2023."""
    config = {"model": "hf-causal", "model_args": args, "num_fewshot": 0, "batch_size": 32, "limit": None}
    return {
        "results": results or {"lambada_openai": {"ppl": 2591.5, "ppl_stderr": 111.2, "acc": 0.0625}},
        "versions": {"lambada_openai": 0},
        "config": config,
    }


def new(results=None, args=None, date=1.7e9, config=None, **top) -> dict:
    """Return a file as lm-eval 0.4 writes it."""
    results = results or {"piqa": {"name": "piqa", "alias": "piqa", "sample_len": 1838, "acc,none": 0.5}}
    return {
        "results": results,
        "configs": {task: {"task": task, "num_fewshot": 5} for task in results},
        "config": {
            "model": "hf",
            "model_args": args or {"pretrained": "EleutherAI/pythia-14m", "revision": "step1000"},
            "limit": None,
            **(config or {}),
        },
        "date": date,
        **top,
    }


def ours(value, date=1.7e9, args=None, corpus=None, checkpoint=None, settings=None, **more) -> dict:
    """Return a file of lmsat's loss."""
    corpus = {
        **{"corpus": "sample", "max_tokens": 50000, "seed": 0, "limit": None, "window": 2048},
        **{"documents": 22, "sha256": "a" * 64},
        **(corpus or {}),
    }
    note = {
        "commit": None,
        "dtype": "float32",
        "probes": {"loss": {"version": 1, "settings": settings or {}}},
        "corpus": corpus,
        "model": {"n_params": 1000, "n_params_non_embedding": 700, "hidden_size": 48, "vocab_size": 576},
        **({"checkpoint": checkpoint} if checkpoint else {}),
        **more,
    }
    entry = {
        "alias": "lmsat_loss",
        "loss,none": value,
        "loss_stderr,none": 0.25,
        "loss_stderr_stderr,none": "N/A",
    }
    found = new({"lmsat_loss": entry}, args, date, {"lmsat": note})
    found["n-samples"] = {"lmsat_loss": {"original": 30, "effective": 1}}
    found["higher_is_better"] = {"lmsat_loss": {"loss": False}}
    return found


def write(path: Path, content: dict | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), "utf-8")
    return path


def load_one(tmp_path, content, name="results_1.json", **options) -> pd.Series:
    table = load_results(write(tmp_path / name, content), **options)
    assert len(table) == 1
    return table.iloc[0]


def test_columns_and_types(tmp_path):
    write(tmp_path / "a/results_1.json", new())
    write(tmp_path / "b/160m_step1000.json", old())
    table = load_results(tmp_path)
    assert tuple(table.columns) == COLUMNS
    assert (
        *("model", "revision", "commit", "step", "tokens", "n_params", "n_params_non_embedding"),
        *("hidden_size", "vocab_size", "corpus", "task", "num_fewshot", "metric", "filter"),
        *("value", "stderr", "n_samples", "higher_is_better", "date", "path"),
    ) == COLUMNS
    assert {str(table[name].dtype) for name in (*INTEGERS, "num_fewshot", "n_samples")} == {"Int64"}
    assert table.value.dtype == table.stderr.dtype == float
    assert str(table.higher_is_better.dtype) == "boolean"
    assert str(table.date.dtype) == "datetime64[us, UTC]"
    assert list(table.index) == [0, 1, 2]


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
    assert pd.isna(ppl.n_params)
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
    assert set(rows) == {
        ("exact_match", "strict-match"),
        ("exact_match", "flexible-extract"),
        ("weird", "none"),
    }
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
    ("args", "name", "expected"),
    [
        ({"pretrained": "/runs/neox-w32/step1000"}, "r.json", ("neox-w32", "step1000", 1000)),
        ({"pretrained": "/runs/neox-w32/checkpoints/checkpoint-500/"}, "r.json", ("neox-w32", "checkpoint-500", 500)),
        ({"pretrained": "neox-w32/step7"}, "r.json", ("neox-w32", "step7", 7)),
        ({"pretrained": "C:\\runs\\a\\step7"}, "r.json", ("a", "step7", 7)),
        # On the Hub, a name of two parts is a model.
        ({"pretrained": "org/model-step7"}, "r.json", ("org/model-step7", "main", None)),
        ({"pretrained": "org/model"}, "step9/r.json", ("org/model", "step9", 9)),
        ({"pretrained": "org/model"}, "14m_step9.json", ("org/model", "14m_step9", 9)),
        ({"pretrained": "org/model"}, "step9_2024-05-01T12-00-00.1.json", ("org/model", "step9", 9)),
        ({"pretrained": "org/model"}, "results_2024-05-01T12-00-00.1.json", ("org/model", "main", None)),
        ({"pretrained": "org/model", "revision": "abc"}, "step9/r.json", ("org/model", "abc", 9)),
        ({"pretrained": "org/model", "revision": 1000}, "r.json", ("org/model", "1000", None)),
        ("pretrained='org/model',revision=\"step9\"", "r.json", ("org/model", "step9", 9)),
        ("pretrained=org/model,a=b=c,,nonsense,revision=step9", "r.json", ("org/model", "step9", 9)),
        ({"model": "gpt-x", "base_url": "http://here"}, "r.json", ("gpt-x", "main", None)),
        ("", "some-model/r.json", ("some-model", "main", None)),
        ({"pretrained": "<b>\"x\"</b>/../../it's"}, "r.json", ("<b>\"x\"</b>/../../it's", "main", None)),
    ],
)  # fmt: skip
def test_names(tmp_path, args, name, expected):
    content = new()
    content["config"]["model_args"] = args
    write(tmp_path / "tree" / name, content)
    row = load_results(tmp_path / "tree").iloc[0]
    step = None if pd.isna(row.step) else row.step
    assert (row.model, row.revision, step) == expected


def test_names_of_ones_own(tmp_path):
    row = load_one(
        tmp_path,
        new(args={"pretrained": "EleutherAI/pythia-160m", "revision": "it_12k"}),
        step_pattern=r"it_(?P<step>\d+k?)",
        tokens_per_step=10,
    )
    assert (row.model, row.step, row.tokens) == ("EleutherAI/pythia-160m", 12_000, 120_000)
    # A pattern that finds a number anywhere does not make checkpoints of names on the Hub.
    row = load_one(
        tmp_path, new(args={"pretrained": "EleutherAI/pythia-160m"}), step_pattern=r"(?P<step>\d+)"
    )
    assert row.model == "EleutherAI/pythia-160m"
    with pytest.raises(LmsatError, match="step_pattern"):
        load_results(tmp_path, step_pattern="(")
    with pytest.raises(LmsatError, match="tokens_per_step=0"):
        load_results(tmp_path, tokens_per_step=0)


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


def test_nonsense_anywhere_stops_nothing(tmp_path):
    """Each part of a file in turn is replaced by what does not belong there."""
    whole = ours(3.5, checkpoint={"step": 1, "model": "m", "revision": "r"}, supersedes={"x.json": ["piqa"]})
    whole.update(versions={}, groups={}, **{"n-shot": {}})
    paths = [[]]
    for path in paths:
        part = whole
        for key in path:
            part = part[key]
        if isinstance(part, dict):
            paths += [[*path, key] for key in part]
    bad = (
        None,
        5,
        -1e400,
        10**400,
        "\ud800",
        "x" * 9999,
        "step" + "9" * 9999,
        [],
        [[1]],
        {},
        {"a": {"b": []}},
        True,
    )
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


def test_the_newest_stands(tmp_path):
    write(tmp_path / "z/results_1.json", new({"piqa": {"acc,none": 0.1, "acc_norm,none": 0.7}}, date=1.0e9))
    write(tmp_path / "a/results_1.json", new({"piqa": {"acc,none": 0.2}}, date=1.1e9))
    write(tmp_path / "b/results_1.json", new({"piqa": {"acc,none": 0.3}}, date=1.1e9))
    table = load_results(tmp_path)
    assert list(zip(table.metric, table.value, strict=True)) == [("acc", 0.3), ("acc_norm", 0.7)]
    assert sorted(load_results(tmp_path, all_results=True).value) == [0.1, 0.2, 0.3, 0.7]
    # Other weights under the same name, or other examples in the prompt, are another measurement.
    write(tmp_path / "c/results_1.json", new({"piqa": {"acc,none": 0.4}}, config={"model_sha": "other"}))
    write(tmp_path / "d/results_1.json", new({"piqa": {"acc,none": 0.5}}, **{"n-shot": {"piqa": 1}}))
    assert sorted(load_results(tmp_path).value) == [0.3, 0.4, 0.5, 0.7]


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


def test_variants_of_a_corpus_are_told_apart(tmp_path):
    args = {"pretrained": "a/b", "revision": "step1"}
    write(tmp_path / "results_1.json", ours(1.0, args=args))
    write(tmp_path / "results_2.json", ours(2.0, args=args, corpus={"max_tokens": 100, "sha256": "b" * 64}))
    write(tmp_path / "results_3.json", ours(3.0, args={**args, "revision": "step2"}))
    write(tmp_path / "results_4.json", ours(4.0, args=args, corpus={"corpus": "pile", "window": 64}))
    table = load_results(tmp_path).set_index("value")
    assert table.corpus.to_dict() == {
        1.0: "sample (max_tokens=50000)",
        2.0: "sample (max_tokens=100)",
        3.0: "sample (max_tokens=50000)",
        4.0: "pile",
    }
    assert set(table.model) == {"a/b"}


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        ({"corpus": {"sha256": "b" * 64}}, {"sample (sha256=aaaaaaaa)", "sample (sha256=bbbbbbbb)"}),
        ({"corpus": {"limit": 3}}, {"sample", "sample (limit=3)"}),
        ({"corpus": {"max_tokens": None}}, {"sample", "sample (max_tokens=50000)"}),
        ({"settings": {"ranks": [8, 16]}}, {"sample", "sample (ranks=[8, 16])"}),
        (
            {"corpus": {"seed": 1, "window": 64}},
            {"sample (seed=0, window=2048)", "sample (seed=1, window=64)"},
        ),
    ],
)
def test_what_is_told_apart(tmp_path, change, labels):
    write(tmp_path / "results_1.json", ours(1.0))
    write(tmp_path / "results_2.json", ours(2.0, **change))
    assert set(load_results(tmp_path).corpus) == labels


def test_variants_of_a_model_are_told_apart(tmp_path):
    args = {"pretrained": "a/b", "revision": "step1"}
    write(tmp_path / "1/results_1.json", new(args=args))
    write(tmp_path / "2/results_1.json", new(args="pretrained=a/b,revision=step1,head_rank=32,device=cpu"))
    both = {**args, "head_rank": 32, "batch_size": 8, "trust_remote_code": True, "load_in_8bit": False}
    # The same again, and a task for which there is nothing else: it stays with the others of its rank.
    write(tmp_path / "3/results_1.json", new({"arc": {"acc,none": 0.25}}, both))
    write(tmp_path / "4/results_1.json", new({"piqa": {"acc,none": 0.75}}, both, date=1.8e9))
    write(tmp_path / "5/results_1.json", new({"piqa": {"acc,none": 0.125}}, args, config={"limit": 10}))
    write(tmp_path / "6/results_1.json", new(args={"pretrained": "c/d", "head_rank": 8}))
    table = load_results(tmp_path)
    assert sorted(zip(table.model, table.task, table.value, strict=True)) == [
        ("a/b", "piqa", 0.5),
        ("a/b (head_rank=32)", "arc", 0.25),
        ("a/b (head_rank=32)", "piqa", 0.75),
        ("a/b (limit=10)", "piqa", 0.125),
        ("c/d", "piqa", 0.5),
    ]


def test_types_and_folders_are_told_apart_where_they_compete(tmp_path):
    def measured(folder, step, dtype, place):
        args = {"pretrained": f"{place}/run/step{step}"}
        write(tmp_path / folder / "results_1.json", new(args=args, config={"model_dtype": f"torch.{dtype}"}))

    # Checkpoints of one series that were saved in several types are one series.
    measured("1", 1, "float32", "/a")
    measured("2", 2, "float16", "/a")
    assert set(load_results(tmp_path).model) == {"run"}
    measured("3", 2, "float32", "/a")
    assert sorted(load_results(tmp_path).model) == ["run (dtype=float16)", *["run (dtype=float32)"] * 2]
    (tmp_path / "3" / "results_1.json").unlink()
    measured("3", 2, "float16", "/b")
    assert sorted(load_results(tmp_path).model) == [*["run (folder=/a/run)"] * 2, "run (folder=/b/run)"]


def test_order(tmp_path):
    for number, revision in enumerate(("main", "step10", "step9", "step100")):
        write(tmp_path / f"{number}/results_1.json", new(args={"pretrained": "a/b", "revision": revision}))
    write(tmp_path / "results_0.json", ours(1.0, args={"pretrained": "a/b", "revision": "step0"}))
    table = load_results(tmp_path)
    assert list(table.revision) == ["step0", "step9", "step10", "step100", "main"]


def test_nothing_to_read_is_one_sentence(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "missing", write(tmp_path / "x" / "config.json", "{}")):
        with pytest.raises(LmsatError) as error:
            load_results(path)
        assert str(path) in str(error.value)
        assert main(["results", str(path)]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("lmsat: error:")
        assert shown.count("\n") == 1


def test_neither_torch_nor_lm_eval_is_imported(tmp_path):
    write(tmp_path / "results_1.json", new())
    code = (
        "import sys; from lmsat_plugin import load_results; load_results(sys.argv[1]); "
        "print(*[name for name in ('torch', 'lm_eval', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@real_data
def test_real_files_lose_nothing():
    expected = {}
    for path in REAL.rglob("*.json"):
        for task, entry in json.loads(path.read_text()).get("results", {}).items():
            for key, value in entry.items():
                if not key.endswith("_stderr"):
                    expected[path.relative_to(REAL).as_posix(), task, key] = (
                        value,
                        entry.get(f"{key}_stderr"),
                    )
    table = load_results(REAL, tokens_per_step=2_097_152)
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
    file = json.loads((REAL / "pythia-160m/zero-shot/160m_step143000.json").read_text())
    lambada = table[
        (table.model == "EleutherAI/pythia-v1.1-160m")
        & (table.step == 143_000)
        & (table.task == "lambada_openai")
    ].set_index("metric")
    assert lambada.value.to_dict() == {
        name: file["results"]["lambada_openai"][name] for name in ("acc", "ppl")
    }
    assert lambada.higher_is_better.to_dict() == {"acc": True, "ppl": False}


@pytest.fixture
def tree(tmp_path) -> Path:
    write(tmp_path / "tree/1/results_1.json", ours(3.5, args={"pretrained": "a/b_c", "revision": "step1"}))
    bad = {"alias": "x", "acc,none": math.inf, "acc_norm,none": math.nan, "odd|<i>,none": 50000.0}
    name = "=\"quoted\" & <script>, 50%_|'x'"
    write(tmp_path / "tree/2/results_1.json", new({"piqa\nzwei": bad}, {"pretrained": name}))
    return tmp_path / "tree"


def printed(capsys, *arguments) -> str:
    assert main(["results", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refuse(token: str) -> float:
    raise ValueError(token)


def test_json_is_strict(tree, capsys):
    rows = json.loads(printed(capsys, tree, "--format", "json"), parse_constant=refuse)
    assert [list(row) for row in rows] == [list(COLUMNS)] * 4
    loss = next(row for row in rows if row["metric"] == "loss")
    assert (loss["value"], loss["stderr"], loss["step"], loss["higher_is_better"]) == (3.5, 0.25, 1, False)
    assert loss["date"] == "2023-11-14T22:13:20+00:00"
    odd = {row["metric"]: row for row in rows if row["task"] == "piqa\nzwei"}
    assert (
        odd["acc"]["value"] is odd["acc_norm"]["value"] is odd["acc"]["corpus"] is odd["acc"]["step"] is None
    )
    assert odd["odd|<i>"]["value"] == 50000


def test_csv_reads_back(tree, capsys):
    rows = list(csv.DictReader(io.StringIO(printed(capsys, tree, "--format", "csv"), newline="")))
    assert len(rows) == 4
    assert list(rows[0]) == list(COLUMNS)
    assert {row["model"] for row in rows} == {"a/b_c", "=\"quoted\" & <script>, 50%_|'x'"}
    assert [row["value"] for row in rows if row["metric"] == "loss"] == ["3.5"]
    assert {row["step"] for row in rows} == {"1", ""}


def test_markdown_and_latex_escape(tree, capsys):
    markdown = printed(capsys, tree, "--format", "md").splitlines()
    assert len(markdown) == 6
    widths = {line.replace("\\|", "").count("|") for line in markdown}
    assert len(widths) == 1
    assert "<" not in "".join(markdown)
    assert "path" not in markdown[0]
    assert "tokens" not in markdown[0], "md and latex are for people"
    latex = printed(capsys, tree, "--format", "latex")
    assert "a/b\\_c & 1 & sample" in latex
    assert "\\& \\textless{}script\\textgreater{}, 50\\%\\_\\textbar{}'x'" in latex
    body = [line for line in latex.splitlines() if line.endswith("\\\\")]
    assert len(body) == 5
    assert {line.replace("\\&", "").count("&") for line in body} == {body[0].count("&")}


def test_parquet_reads_back(tree, tmp_path, capsys):
    printed(capsys, tree, "--format", "parquet", "--output", tmp_path / "x" / "t.parquet")
    back, table = pd.read_parquet(tmp_path / "x" / "t.parquet"), load_results(tree)
    assert list(back.columns) == list(COLUMNS)
    assert list(back.model) == list(table.model)
    assert back.value.equals(table.value)
    assert list(back.date) == list(table.date)
    assert back.step.isna().tolist() == table.step.isna().tolist()
    assert main(["results", str(tree), "--format", "parquet"]) == 2
    assert "--output" in capsys.readouterr().err


def test_output_is_what_would_be_printed(tree, tmp_path, capsys):
    printed(capsys, tree, "--format", "csv", "--output", tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text("utf-8") == printed(capsys, tree, "--format", "csv")
    assert main(["results", str(tree), "--output", str(tmp_path / "t.txt")]) == 2


def test_the_table_for_people(tree, capsys):
    shown = printed(capsys, tree)
    assert "a/b_c" in shown
    assert "lmsat_loss" in shown
    assert "50,000" in shown
    assert "main" in shown, "the revision stands in for a step that is not known"
    assert "nan" not in shown.replace("piqa", "")
    # What is the same everywhere is left out.
    assert "filter" not in shown


def test_globs(tree, capsys):
    def metrics(*arguments):
        return [row["metric"] for row in json.loads(printed(capsys, tree, "--format", "json", *arguments))]

    assert metrics("--task", "lmsat_*") == ["loss"]
    assert metrics("--metric", "acc*") == ["acc", "acc_norm"]
    assert metrics("--model", "a/*", "--metric", "l*") == ["loss"]
    assert main(["results", str(tree), "--task", "arc*"]) == 2
    error = capsys.readouterr().err
    assert "--task=arc*" in error
    assert error.count("\n") == 1
    assert "lmsat_loss" in error


def test_options_reach_the_table(tmp_path, capsys):
    for number in (1, 2):
        write(
            tmp_path / f"results_{number}.json",
            new(args={"pretrained": "a/b", "revision": "it5"}, date=number),
        )
    options = ["--format", "json", "--step-pattern", r"it(?P<step>\d+)", "--tokens-per-step", "3"]
    [row] = json.loads(printed(capsys, tmp_path, *options))
    assert (row["step"], row["tokens"]) == (5, 15)
    assert len(json.loads(printed(capsys, tmp_path, "--all", *options))) == 2


@pytest.mark.parametrize("form", ["table", "csv"])
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_stops_early_is_no_error(tmp_path, form, reader):
    many = {f"task{i}": {"acc,none": 0.5} for i in range(3000)}
    write(tmp_path / "results_1.json", new(many))
    command = f"{sys.executable} -m lmsat_plugin.cli results {tmp_path} --format {form} | {reader}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("\n") == (reader != "true")
    assert done.stderr == ""

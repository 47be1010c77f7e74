"""Where the prefix token stands is part of what identifies a result; results of before are of ``document``."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep_outputs import age, files_of
from tiny_tokenizers import prepending_bos

from lmsat_plugin.cli.main import main
from lmsat_plugin.results import Results
from lmsat_plugin.results.failures import FAILURES, read_failures
from lmsat_plugin.sweeps import prefixes

TASKS = ["lmsat_loss", "lmsat_head", "lmsat_ngram"]
OPTIONS = {"tasks": TASKS, "metadata": {"order": 2}}


@pytest.fixture
def run_folder(tmp_path, save) -> Path:
    """Return a folder with one checkpoint."""
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "step0", 0)
    return tmp_path / "run"


def measured(output: Path, before: dict[str, dict]) -> list[str]:
    """Return the tasks in result files that were not there before."""
    now = files_of(output)
    assert all(now[path] == document for path, document in before.items())
    return sorted(task for path in now.keys() - before.keys() for task in now[path]["results"])


def test_what_does_not_prepend_bos_stays_measured(configure, tmp_path):
    output = tmp_path / "out"
    assert main(["sweep", str(configure(**OPTIONS))]) == 0
    first = files_of(output)
    assert measured(output, {}) == sorted(TASKS)
    [document] = first.values()
    assert document["config"]["lmsat"]["corpus"]["prefix"] == "document"
    assert all("prefix" not in identity.get("corpus", {}) for identity in document["config"]["lmsat"]["identities"])
    for same in ({}, {"prefix": "document"}, {"prefix": "auto"}):
        assert main(["sweep", str(configure(**OPTIONS, **same))]) == 0
        assert measured(output, first) == []
    # Results of versions that noted nothing.
    age(output)
    old = files_of(output)
    assert old != first
    for same in ({}, {"prefix": "document"}):
        assert main(["sweep", str(configure(**OPTIONS, **same))]) == 0
        assert measured(output, old) == []
    # The n-grams and the head do not depend on windows.
    assert main(["sweep", str(configure(**OPTIONS, prefix="window"))]) == 0
    assert measured(output, old) == ["lmsat_loss"]
    table = Results.read(output).table
    rows = table[table.metric == "loss"]
    assert sorted(rows.variant) == ["prefix=document", "prefix=window"]
    assert rows.value.nunique() == 2
    others = table[table.task != "lmsat_loss"]
    assert others.variant.isna().all()
    assert not others.duplicated(["task", "metric"]).any()


def test_what_prepends_bos_is_measured_anew(configure, tmp_path, run_folder, tokenizer, capsys):
    prepending_bos(tokenizer).save_pretrained(run_folder / "step0")
    output = tmp_path / "out"
    assert main(["sweep", str(configure(**OPTIONS, prefix="document"))]) == 0
    age(output)
    old = files_of(output)
    capsys.readouterr()
    assert main(["sweep", str(configure(**OPTIONS)), "--dry-run"]) == 0
    [row] = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["run"]]
    assert row[1:6] == ["1", "3", "2", "0", "1"], "checkpoints, results, done, failed, to do"
    assert main(["sweep", str(configure(**OPTIONS))]) == 0
    assert measured(output, old) == ["lmsat_loss"]
    now = files_of(output)
    for same in ({}, {"prefix": "window"}, {"prefix": "document"}):
        assert main(["sweep", str(configure(**OPTIONS, **same))]) == 0
        assert measured(output, now) == []
    table = Results.read(output).table
    assert sorted(table[table.metric == "loss"].variant) == ["prefix=document", "prefix=window"]


def test_two_policies_of_one_corpus_in_one_sweep(configure, corpus_file, tmp_path):
    corpora = [{"corpus": str(corpus_file), "prefix": policy} for policy in ("window", "document", "auto")]
    assert main(["sweep", str(configure(**OPTIONS, corpus=None, corpora=corpora))]) == 0
    assert measured(tmp_path / "out", {}) == ["lmsat_head", "lmsat_loss", "lmsat_loss", "lmsat_ngram"]


def test_noted_results_need_no_tokenizer(configure, tmp_path, monkeypatch):
    assert main(["sweep", str(configure())]) == 0
    first = files_of(tmp_path / "out")
    monkeypatch.setattr(prefixes, "_POLICIES", {})
    monkeypatch.setattr(prefixes, "_load", lambda *given: pytest.fail("a tokenizer is loaded"))
    assert main(["sweep", str(configure())]) == 0
    assert measured(tmp_path / "out", first) == []


def test_what_failed_is_not_tried_again_under_another_name(configure, tmp_path, run_folder):
    for path in run_folder.glob("step0/tokenizer*"):
        path.unlink()
    assert main(["sweep", str(configure())]) == 1
    [record] = [read_failures(path) for path in (tmp_path / "out").rglob(FAILURES)]
    assert main(["sweep", str(configure())]) == 1
    [again] = [read_failures(path) for path in (tmp_path / "out").rglob(FAILURES)]
    assert again == record


def test_prefix_of_rolling_windows_is_of_tasks_alone(configure, tmp_path):
    assert main(["sweep", str(configure())]) == 0
    first = files_of(tmp_path / "out")
    assert main(["sweep", str(configure(model_args={"rolling_prefix": "window"}))]) == 0
    assert measured(tmp_path / "out", first) == []


def test_wrong_policy_is_one_sentence(configure, capsys):
    assert main(["sweep", str(configure(prefix="windows"))]) != 0
    assert "prefix" in capsys.readouterr().err

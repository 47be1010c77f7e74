"""The class of downstream tasks: files in place of datasets, data that cannot be had, what identifies results."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
import yaml
from downstream_data import HIGHER_IS_BETTER, LOGIQA, arguments, exam, load, manager, refusal, splits
from evaluation import simple_evaluate

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness import releases
from lmsat_plugin.harness.downstream import DownstreamTask
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.harness.shared_tasks import SharedTasks, TaskError
from lmsat_plugin.sweeps.config import SweepConfig
from lmsat_plugin.sweeps.plan import Plan


def test_a_file_takes_the_place_of_the_dataset(asked, files):
    task = load("lmsat-storycloze", storycloze=files["storycloze"])
    assert asked == []
    assert arguments(task) == [("One, two. B. C. D.", " Good."), ("One, two. B. C. D.", " Bad.")]
    assert task.process_results(task.eval_docs[0], [(-2.0, False), (-1.0, False)])["acc"] == 1
    assert task.config.dataset_path == files["storycloze"]


def test_data_that_cannot_be_had_are_named(asked, monkeypatch):
    def offline(path, name=None, **options):
        raise ConnectionError("Couldn't reach the Hub.\nMore of this")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert refusal("lmsat-race") == (
        "the data of lmsat-race, ehovy/race (all), cannot be loaded (Couldn't reach the Hub): "
        "check the network or the cache of `datasets`, or leave the task out"
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name=None: splits(train=[{"a": 1}]))
    assert "have no split 'validation', only train" in refusal("lmsat-hellaswag")
    rows = exam("anatomy", "test", 2)
    changed = splits(dev=rows, test=[rows[0], {**rows[1], "subject": "alchemy"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name=None: changed)
    assert "have a subject 'alchemy'" in refusal("lmsat-mmlu")
    monkeypatch.setattr(releases, "_text_of", lambda path: LOGIQA.replace("D.Yes\n", ""))
    assert "'Which holds?' has 3 options, not 4" in refusal("lmsat-logiqa")
    with pytest.raises(LmsatError, match=r"no task configuration gone\.yaml: install lm_eval"):
        DownstreamTask(config={"task": "x", "base": "gone.yaml"})


def test_what_identifies_a_result(files, tmp_path, checkpoint):
    """A file by its content, whatever its name, and only for the task that reads it."""

    def identities(**metadata) -> dict[str, dict]:
        tasks = ["lmsat-storycloze", "lmsat-clozet", "lmsat-arc-easy", "lmsat-pythia"]
        config = SweepConfig(models=[str(checkpoint("gpt2"))], tasks=tasks, output=tmp_path / "out", metadata=metadata)
        return {unit.task: part for _, unit, part in Plan(config).of_each_checkpoint}

    without, given = identities(), identities(**files)
    assert {task for task in given if given[task] != without[task]} == {
        *("lmsat-storycloze", "lmsat-clozet", "lmsat-pythia")
    }
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(files["storycloze"]).read_bytes())
    assert identities(**{**files, "storycloze": str(copy)}) == given
    copy.write_text(copy.read_text("utf-8-sig").replace("Good", "Fine"))
    assert identities(**{**files, "storycloze": str(copy)}) != given
    assert without["lmsat-arc-easy"]["version"]["base_version"] == 1.0


def test_plain_lm_eval_and_sweeps_agree(asked, files, checkpoint, tmp_path):
    """The same numbers by both roads, once each, with options of 3 to 5 and with a user's file."""
    model = str(checkpoint("gpt2"))
    names = ["lmsat-arc-easy", "lmsat-clozet"]
    alone = simple_evaluate(
        model=SaturationLM(model, device="cpu", batch_size=4),
        tasks=names,
        task_manager=manager(clozet=files["clozet"]),
        bootstrap_iters=100,
    )
    config = tmp_path / "sweep.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                **{"models": [model], "tasks": names, "metadata": {"clozet": files["clozet"]}},
                **{"output": str(tmp_path / "out"), "device": "cpu", "batch_size": 4},
            }
        )
    )
    assert main(["sweep", str(config)]) == 0
    [path] = (tmp_path / "out").rglob("results_*.json")
    swept = json.loads(path.read_text())
    for name in names:
        row = alone["results"][name]
        assert {f"{metric},none" for metric in HIGHER_IS_BETTER} <= row.keys()
        for key, value in row.items():
            if isinstance(value, float):
                assert swept["results"][name][key] == pytest.approx(value, rel=1e-6), (name, key)
        assert swept["higher_is_better"][name] == alone["higher_is_better"][name]
    assert swept["n-samples"]["lmsat-arc-easy"]["effective"] == 3


def test_a_sweep_without_the_file_says_so(asked, tmp_path):
    shared = SharedTasks(["lmsat-emergence"], [], {})
    with pytest.raises(TaskError, match="--metadata nlpcc_kbqa=FILE"):
        shared.load(["lmsat-emergence"])

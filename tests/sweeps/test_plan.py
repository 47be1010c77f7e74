"""What identifies a result: nothing is measured twice, and what has changed is measured anew."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from sweep_outputs import files_of

from lmsat_plugin import Measurement, Need, Probe, Settings
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.head_files import save_restricted_head
from lmsat_plugin.plugins import plugins
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.local import run_sweep
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.text.corpora import CorpusSettings


def test_nothing_is_measured_twice(configure, quiz, tmp_path):
    include = str(quiz())
    assert main(["sweep", str(configure())]) == 0
    first = files_of(tmp_path / "out")
    assert main(["sweep", str(configure())]) == 0
    assert files_of(tmp_path / "out") == first

    # A task that is added is the only one measured.
    config = configure(tasks=["lmsat_loss", "lmsat_head", "quiz"], include_path=include)
    assert main(["sweep", str(config)]) == 0
    second = files_of(tmp_path / "out")
    assert all(second[path] == document for path, document in first.items())
    assert [list(second[path]["results"]) for path in second.keys() - first.keys()] == [["quiz"]] * 3

    # Another number of tokens is another measurement, of what reads the corpus; the old one stays.
    config = configure(tasks=["lmsat_loss", "lmsat_head", "quiz"], include_path=include, max_tokens=300)
    assert main(["sweep", str(config)]) == 0
    third = files_of(tmp_path / "out")
    assert [list(third[path]["results"]) for path in third.keys() - second.keys()] == [["lmsat_loss"]] * 3

    # So is another window, another number of examples, and another version of a task.
    changed = {"tasks": ["lmsat_loss", "lmsat_head", "quiz"], "include_path": include, "max_tokens": 300}
    assert main(["sweep", str(configure(**changed, model_args={"max_length": 32}))]) == 0
    fourth = files_of(tmp_path / "out")
    tasks = sorted(task for path in fourth.keys() - third.keys() for task in fourth[path]["results"])
    assert tasks == ["lmsat_loss"] * 3 + ["quiz"] * 3
    assert main(["sweep", str(configure(**changed, num_fewshot=1))]) == 0
    fifth = files_of(tmp_path / "out")
    assert [fifth[path]["n-shot"] for path in fifth.keys() - fourth.keys()] == [{"quiz": 1}] * 3
    quiz(version=2)
    assert main(["sweep", str(configure(**changed))]) == 0
    sixth = files_of(tmp_path / "out")
    new = [sixth[path] for path in sixth.keys() - fifth.keys()]
    assert [document["versions"] for document in new] == [{"quiz": 2}] * 3
    assert all(document["config"]["lmsat"]["supersedes"] for document in new)

    # What only says how to run changes nothing.
    assert main(["sweep", str(configure(**changed, batch_size=2))]) == 0
    assert files_of(tmp_path / "out") == sixth
    assert main(["sweep", str(configure(**changed)), "--force"]) == 0
    assert len(files_of(tmp_path / "out")) == len(sixth) + 3


def test_groups_tags_and_files_are_tasks(configure, quiz, tmp_path):
    folder = quiz()
    text = (folder / "quiz.yaml").read_text()
    for name in ("left", "right"):
        (folder / f"{name}.yaml").write_text(text.replace("task: quiz", f"task: {name}\ntag: sides"))
    group = {"group": "both", "task": ["left", "right"], "metadata": {"version": 1}}
    group["aggregate_metric_list"] = [{"metric": "acc", "weight_by_size": True}]
    (folder / "both.yaml").write_text(yaml.safe_dump(group))
    (tmp_path / "lone.yaml").write_text(text.replace("task: quiz", "task: lone"))
    config = configure(tasks=["both", str(tmp_path / "lone.yaml")], include_path=str(folder))
    for _ in range(2):
        assert main(["sweep", str(config)]) == 0
        found = files_of(tmp_path / "out")
        assert len(found) == 3
        for document in found.values():
            assert set(document["results"]) == {"both", "left", "right", "lone"}
            score = document["results"]["both"]["acc,none"]
            assert score == pytest.approx(document["results"]["left"]["acc,none"])
    assert main(["sweep", str(config), "--force"]) == 0
    from lmsat_plugin import load_results

    assert len(set(load_results(tmp_path / "out").path)) == 3
    config = configure(tasks=["sides"], include_path=str(folder), output=str(tmp_path / "tagged"))
    assert main(["sweep", str(config)]) == 0
    assert all(set(d["results"]) == {"left", "right"} for d in files_of(tmp_path / "tagged").values())


def test_a_probe_under_a_tag_leaves_the_shots_of_the_other_tasks(configure, quiz):
    folder = quiz()
    text = (folder / "quiz.yaml").read_text()
    (folder / "quiz.yaml").write_text(text.replace("task: quiz", "task: quiz\ntag: mixed"))
    # In the order of their names the probe comes first.
    (folder / "a_loss.yaml").write_text(
        "task: a_loss\ntag: mixed\nclass: !function lmsat_plugin.harness.task.ProbeTask\nprobe: loss\n"
    )
    config = configure(
        tasks=[{"task": "mixed", "num_fewshot": 1}, {"task": "lmsat_*", "num_fewshot": 5}],
        include_path=str(folder),
        num_fewshot=3,
    )
    batches = Plan(load_config(config)).batches
    shots = {unit.task: (batch.num_fewshot, unit.num_fewshot) for batch in batches for unit in batch.units}
    assert shots.pop("quiz") == (1, 1)
    assert {"a_loss", "lmsat_loss", "lmsat_head"} <= shots.keys()
    assert set(shots.values()) == {(3, None)}


def test_changed_weights_are_measured_anew(configure, save, run_folder, tmp_path):
    assert main(["sweep", str(configure())]) == 0
    first = files_of(tmp_path / "out")
    shutil.rmtree(run_folder / "step10")
    save(run_folder / "step10", 77)
    # Files that are only touched are read again, and found to be the same.
    os.utime(run_folder / "step0" / "model.safetensors", (1, 1))
    summary = run_sweep(load_config(configure()))
    assert (summary.measured, summary.done_before) == (1, 2)
    second = files_of(tmp_path / "out")
    [new] = second.keys() - first.keys()
    assert Path(new).parts[:2] == ("run", "step10")
    [old] = (path for path in first if "/step10/" in path)
    [(name, tasks)] = second[new]["config"]["lmsat"]["supersedes"].items()
    assert (name, sorted(tasks)) == (Path(old).name, ["lmsat_head", "lmsat_loss"])


def test_a_head_or_a_text_to_train_on_that_was_replaced_is_measured_anew(configure, tmp_path, corpus_file, capsys):
    head, text = tmp_path / "head.safetensors", tmp_path / "train.txt"
    config = str(
        configure(
            model_args={"head": str(head)},
            tasks=["lmsat_loss", "lmsat_rank_head"],
            metadata={"ranks": [4], "train_tokens": 1100, "train_corpus": str(text)},
        )
    )
    text.write_text("Some words to train on, which are not those that are measured. " * 200)
    assert main(["sweep", config, "--only", "run@step10"]) == 2
    assert f"head={head} cannot be read (No such file or directory)" in capsys.readouterr().err

    def measured() -> list[set[str]]:
        assert main(["sweep", config, "--only", "run@step10"]) == 0
        paths = sorted((tmp_path / "out").rglob("results_*.json"))
        return [set(json.loads(path.read_text())["results"]) for path in paths]

    save_restricted_head(head, torch.ones(576, 3), torch.ones(3, 48), {})
    assert measured() == measured() == [{"lmsat_loss", "lmsat_rank_head"}]
    text.write_text("Others. " * 2000)
    assert measured()[1:] == [{"lmsat_rank_head"}]
    save_restricted_head(head, torch.ones(576, 2), torch.ones(2, 48), {})
    assert measured()[2:] == [{"lmsat_loss", "lmsat_rank_head"}]


class ReferenceSettings(Settings):
    reference: str | None = None


class ReferenceProbe(Probe[ReferenceSettings]):
    """A third party's probe whose results depend on a second text."""

    name = "reference"
    needs = Need.WEIGHTS
    settings_type = ReferenceSettings

    @classmethod
    def other_corpora(cls, settings, corpus):
        return {"reference": CorpusSettings(corpus=settings.reference)} if settings.reference else {}

    def start(self, context):
        pass

    def finish(self):
        return Measurement({"size": 1.0})


def test_a_third_party_probe_says_which_other_texts_its_results_depend_on(configure, monkeypatch, tmp_path):
    monkeypatch.setitem(plugins().probes, "reference", ReferenceProbe)
    start = "class: !function lmsat_plugin.harness.task.ProbeTask\n"
    (tmp_path / "lmsat_reference.yaml").write_text(f"task: lmsat_reference\nprobe: reference\n{start}")
    text = tmp_path / "reference.txt"
    text.write_text("to compare with")
    options = {"tasks": ["lmsat_reference"], "include_path": str(tmp_path)}

    def identity(**metadata):
        plan = Plan(load_config(configure(**options, metadata=metadata)))
        [result] = plan.work(plan.jobs[0], "weights")
        return result.identity

    plain, before = identity(), identity(reference=str(text))
    assert "reference_sha256" not in plain
    text.write_text("another text")
    after = identity(reference=str(text))
    assert len(before["reference_sha256"]) == 64
    assert {key for key in after if after[key] != before[key]} == {"reference_sha256"}


def test_overrides_and_shards_and_one_checkpoint(configure, tmp_path, capsys):
    config = str(configure())
    assert main(["sweep", config, "tasks=lmsat_head", "--shard", "2/3"]) == 0
    assert [Path(path).parts[1] for path in files_of(tmp_path / "out")] == ["step10"]
    assert main(["sweep", config, "--only", "run@step100", "tasks=[lmsat_head]"]) == 0
    assert sorted(Path(path).parts[1] for path in files_of(tmp_path / "out")) == ["step10", "step100"]
    assert main(["sweep", config, "--only", "run@step7"]) == 2
    assert main(["sweep", config, "bach_size=3"]) == 2
    assert "on the command line: unknown key 'bach_size': did you mean 'batch_size'?" in capsys.readouterr().err


def test_dry_run_writes_nothing(configure, tmp_path, capsys):
    assert main(["sweep", str(configure()), "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    assert main(["sweep", str(configure()), "--only", "run@step10"]) == 0
    capsys.readouterr()
    assert main(["sweep", str(configure()), "--dry-run"]) == 0
    [row] = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["run"]]
    assert row == ["run", "3", "6", "2", "0", "4", "0"]


@pytest.mark.parametrize("what", ["data", "function", "included", "tokenizer"])
def test_the_content_of_files_that_a_configuration_names_identifies_results(
    configure, quiz, run_folder, tmp_path, what
):
    """Not their names, sizes or times."""
    folder, tokenizer = quiz(), tmp_path / "tokenizer"
    yaml_file = folder / "quiz.yaml"
    (folder / "base.yaml").write_text(yaml_file.read_text().replace('"{{choices}}"', "!function utils.choices"))
    yaml_file.write_text("include: base.yaml\ntask: quiz\n")
    (folder / "utils.py").write_text('def choices(doc): return doc["choices"]')
    shutil.copytree(run_folder / "step0", tokenizer, ignore=shutil.ignore_patterns("*.safetensors"))
    changes = {
        "data": (folder / "test.jsonl", "How much", "How many"),
        "function": (folder / "utils.py", "choices(doc)", "choices(row)"),
        "included": (folder / "base.yaml", "Answer", "Number"),
        "tokenizer": (tokenizer / "tokenizer.json", "the", "eht"),
    }
    config = load_config(
        configure(tasks=["quiz", "lmsat_loss"], include_path=str(folder), model_args={"tokenizer": str(tokenizer)})
    )

    def identities() -> list[dict]:
        plan = Plan(config)
        return [result.identity for result in plan.work(plan.jobs[0], "0" * 64)]

    plan, before = Plan(config), identities()
    assert identities() == before
    path, old, new = changes[what]
    stat = path.stat()
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = identities()
    changed = {a["task"] for a, b in zip(before, now, strict=True) if a != b}
    assert sorted(changed) == (["lmsat_loss", "quiz"] if what == "tokenizer" else ["quiz"])
    results = [r._replace(identity=i) for r, i in zip(plan.of_each_checkpoint, before, strict=True)]
    with pytest.raises(LmsatError, match="changed while it was measured: start the sweep again"):
        plan.check_inputs(plan.jobs[0], results)

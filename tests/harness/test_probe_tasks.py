"""Tasks of probes found without lm-eval are what lm-eval's index finds."""

from __future__ import annotations

import pytest
from places import ROOT

import lmsat_autoload
from lmsat_plugin.harness.probe_tasks import find_probe_tasks
from lmsat_plugin.harness.shared_tasks import SharedTasks
from lmsat_plugin.plugins import plugins

TASK = "task: {}\nclass: !function lmsat_plugin.harness.task.ProbeTask\nprobe: {}\n"


def facts(tasks, wanted):
    return [
        (name, tasks.probe_of(name), tasks.version_of(name), tasks.files_of(name)) for name in tasks.resolve(wanted)
    ]


def test_they_are_what_lm_evals_index_finds():
    wanted = [path.stem for path in sorted((ROOT / "tasks").glob("*.yaml"))]
    assert len(wanted) == len(plugins().probes)
    found = find_probe_tasks([*wanted, wanted[0]], [])
    assert facts(found, [*wanted, wanted[0]]) == facts(SharedTasks(wanted, [], {}), wanted)


def test_of_several_folders_the_last_counts_as_in_lm_evals_index(tmp_path, monkeypatch):
    for folder, name, probe in (("a", "mine", "loss"), ("a/z", "mine", "head"), ("b", "mine", "anisotropy")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.yaml").write_text(TASK.format(name, probe))
    monkeypatch.setattr(lmsat_autoload, "task_folders", lambda: [tmp_path / "a", tmp_path / "b"])
    assert find_probe_tasks(["mine"], []).probe_of("mine") == "anisotropy"
    assert SharedTasks(["mine"], [], {}).probe_of("mine") == "anisotropy"
    monkeypatch.setattr(lmsat_autoload, "task_folders", lambda: [tmp_path / "b", tmp_path / "a"])
    assert find_probe_tasks(["mine"], []).probe_of("mine") == "loss"
    assert SharedTasks(["mine"], [], {}).probe_of("mine") == "loss"


@pytest.mark.parametrize(
    "text",
    [
        "task: lmsat_loss\ndataset_path: x\n",
        "group: lmsat_loss\ntask: [lmsat_head]\n",
        "include: other.yaml\ntask: lmsat_loss\n",
    ],
)
def test_what_a_plugins_folder_replaces_is_left_to_lm_eval(text, tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text(text)
    folders = [*lmsat_autoload.task_folders(), tmp_path]
    monkeypatch.setattr(lmsat_autoload, "task_folders", lambda: folders)
    assert find_probe_tasks(["lmsat_loss"], []) is None
    assert find_probe_tasks(["lmsat_head"], []) is not None


def test_names_that_need_lm_evals_index_are_left_to_it(tmp_path):
    for wanted in (["lmsat_los"], ["lmsat_*"], ["lmsat_loss", "piqa"], ["lmsat-emergence"]):
        assert find_probe_tasks(wanted, []) is None
    assert find_probe_tasks(["lmsat_loss"], [str(tmp_path)]) is None

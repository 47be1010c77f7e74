"""The index of lm-eval's tasks that is kept names what lm-eval's own does, and is made anew when files change."""

from __future__ import annotations

import pytest

from lmsat_plugin.harness import lm_eval_index as module

TASK = "task: {}\ndataset_path: x\ntag: [many, {}]\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a small folder of tasks in the place of lm-eval's."""
    tasks = tmp_path / "tasks"
    (tasks / "b").mkdir(parents=True)
    (tasks / "a.yaml").write_text(TASK.format("first", "odd"))
    (tasks / "b/c.yaml").write_text(TASK.format("second", "even"))
    (tasks / "b/group.yaml").write_text("group: both\ntask: [first, second]\n")
    monkeypatch.setattr(module, "LM_EVAL_TASKS", tasks)
    monkeypatch.setenv("LMSAT_CACHE", str(tmp_path / "cache"))
    return tasks


def facts() -> dict:
    index = module.lm_eval_index.__wrapped__()
    return {name: (entry.name, entry.kind, entry.yaml_path, entry.tags) for name, entry in index.items()}


def test_it_is_kept_until_a_file_changes(folder, tmp_path, monkeypatch):
    built = []
    build = module.TaskIndex.build
    monkeypatch.setattr(module.TaskIndex, "build", staticmethod(lambda paths: built.append(1) or build(paths)))
    first = facts()
    assert first.keys() == {"first", "second", "both", "many", "odd", "even"}
    assert first["many"][3] == {"first", "second"}
    assert facts() == first
    assert len(built) == 1
    kept = tmp_path / "cache/lm_eval_tasks.json"
    whole = kept.read_bytes()
    for broken in (b"", whole[:-3], whole.replace(b"second", b"sekond", 1)):
        kept.write_bytes(broken)
        assert facts() == first
    assert len(built) == 4
    (folder / "a.yaml").write_text(TASK.format("other", "odd"))
    assert "other" in facts()
    (folder / "b/c.yaml").unlink()
    assert "second" not in facts()
    (folder / "b/new.yaml").write_text(TASK.format("third", "odd"))
    assert "third" in facts()

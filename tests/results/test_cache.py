"""The cache of a large tree: the same results as without it, whatever happens to the files and to the cache itself."""

from __future__ import annotations

import json
import os

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from result_files import new, old, ours, write

from lmsat_plugin import Results, load_results
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import cache
from lmsat_plugin.results.failures import Failures


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a tree of many kinds of files, which counts as large, and in which no file counts as just written."""
    monkeypatch.setattr(cache, "WORTHWHILE", 1)
    monkeypatch.setattr(cache, "_TICK_NS", 0)
    root = tmp_path / "tree"
    write(root / "old/160m_step1000.json", old())
    write(root / "b/results_1.json", new(date=None))
    write(root / "b/other.json", {"results": [1, 2]})
    write(root / "b/odd.json", new(args={"pretrained": "m\ud800", "revision": "x"}, date=1e300))
    groups = {"mmlu": {"acc,none": 0.3}, "empty": {}}
    write(root / "b/results_2.json", new(groups, args="pretrained=a/b,revision=step5", date=1.8e9))
    for step in (1000, 2000):
        checkpoint = {"model": "run", "revision": f"step{step}", "step": step}
        for index, limit in enumerate((None, 10)):
            replaces = {"supersedes": {"results_0.json": ["lmsat_loss"]}} if index else {}
            content = ours(3.0 + index, 1.7e9 + index, corpus={"limit": limit}, checkpoint=checkpoint, **replaces)
            write(root / f"run/step{step}/results_{index}.json", content)
    identity = {"task": "lmsat_loss", "corpus": {"corpus": "sample", "max_tokens": 50000}}
    record = Failures(
        checkpoint={"model": "run", "revision": "step3000", "step": 3000},
        run="r",
        date=1.7e9,
        reasons=[(identity, "diverged: the loss is not finite; leave the checkpoint out")],
    )
    (root / "run/step3000").mkdir()
    (root / "run/step3000/failures.json").write_bytes(record.to_bytes())
    return root


def without_cache(root, monkeypatch, **options) -> pd.DataFrame:
    with monkeypatch.context() as patched:
        patched.setattr(cache, "WORTHWHILE", 10**9)
        return load_results(root, **options)


def caches(root) -> list[str]:
    return sorted(path.name for path in root.glob(".lmsat*"))


OPTIONS = [{}, {"all_results": True}, {"tokens_per_step": 7}, {"step_pattern": r"p(?P<step>\d+)"}]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_table(tree, monkeypatch, options):
    expected = without_cache(tree, monkeypatch, **options)
    assert caches(tree) == []
    assert len(expected) >= 8
    for removed in ((), (), (cache.TABLE,), (cache.FILES,), (cache.FILES, cache.TABLE)):
        for name in removed:
            (tree / name).unlink(missing_ok=True)
        assert_frame_equal(load_results(tree, **options), expected, check_exact=True)
        found = load_results(tree, **options)
        for name in ("variant", "commit", "corpus"):
            assert found[name].map(type).tolist() == expected[name].map(type).tolist()
    # Other options are not answered from it.
    for others in OPTIONS:
        assert_frame_equal(load_results(tree, **others), without_cache(tree, monkeypatch, **others))


def test_unchanged_files_are_not_parsed_again(tree, monkeypatch):
    first = Results.read(tree)
    monkeypatch.setattr(cache, "read_result_file", lambda *args, **options: pytest.fail("a file was parsed"))
    second = Results.read(tree)
    assert_frame_equal(first.table, second.table, check_exact=True)
    assert str(first.tasks) == str(second.tasks)
    assert first.texts == second.texts
    assert first.variants == second.variants
    for name in first.files:
        of_first, of_second = first.files[name], second.files[name]
        assert (of_first.path, of_first.origin) == (of_second.path, of_second.origin)
        assert (of_first.provenance, of_first.header) == (of_second.provenance, of_second.header)
        assert of_first.datasets == of_second.datasets


def test_what_changes_is_read_again(tree, monkeypatch):
    load_results(tree)
    changed = tree / "run/step2000/results_1.json"
    status = changed.stat()
    content = changed.read_bytes()
    # The same size, and the same time of modification.
    changed.write_bytes(content.replace(b"4.0", b"5.5"))
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    table = load_results(tree)
    assert 5.5 in set(table.value)
    assert_frame_equal(table, without_cache(tree, monkeypatch))
    changed.unlink()
    write(tree / "run/step4000/results_0.json", ours(2.5, checkpoint={"model": "run", "revision": "step4000"}))
    assert_frame_equal(load_results(tree), without_cache(tree, monkeypatch))
    (tree / "run").rename(tree / "walk")
    assert_frame_equal(load_results(tree), without_cache(tree, monkeypatch))


def test_a_renamed_tree_is_read_again(tree, monkeypatch):
    write(tree / "results_3.json", new(args={"dtype": "float32"}))
    load_results(tree)
    tree = tree.rename(tree.with_name("another"))
    table = load_results(tree)
    assert "another" in set(table.model)
    assert_frame_equal(table, without_cache(tree, monkeypatch))


@pytest.mark.parametrize("name", [cache.FILES, cache.TABLE])
def test_a_damaged_cache_is_not_believed(tree, monkeypatch, name):
    expected = load_results(tree)
    content = (tree / name).read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        damaged = bytearray(content)
        damaged[place] ^= 4
        for data in (bytes(damaged), content[:place]):
            (tree / name).write_bytes(data)
            (tree / ({cache.FILES, cache.TABLE} - {name}).pop()).unlink(missing_ok=True)
            assert_frame_equal(load_results(tree), expected, check_exact=True)


def test_broken_files_are_named_each_time(tree, caplog):
    text = new({"piqa": {"acc,none": 0.5, "acc_norm,none": "half"}}, args={"pretrained": "text", "revision": "x"})
    write(tree / "text/results_1.json", text)
    write(tree / "cut/results_1.json", json.dumps(new())[:-9])
    write(tree / "cut/failures.json", '{"failures": [{"error": "diverged: the loss')
    for _ in range(3):
        caplog.clear()
        load_results(tree)
        told = [record.getMessage() for record in caplog.records]
        assert [sum(name in line for line in told) for name in ("'half'", "cut/results_1", "cut/failures")] == [1, 1, 1]


def test_what_was_just_written_is_not_kept(tree, monkeypatch):
    monkeypatch.setattr(cache, "_TICK_NS", 10**12)
    load_results(tree)
    assert caches(tree) == []


def test_small_trees_get_no_cache(tree, monkeypatch):
    monkeypatch.setattr(cache, "WORTHWHILE", 100)
    load_results(tree)
    assert caches(tree) == []
    write(tree / "run/step5000/results_0.json", ours(2.5))
    load_results(tree / "run/step5000/results_0.json")
    assert caches(tree / "run/step5000") == []


def test_provenance_of_a_file_that_changed_is_refused(tree):
    load_results(tree)
    results = Results.read(tree)
    path = tree / "run/step2000/results_1.json"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(LmsatError, match=r"results_1\.json was changed while it was read: run the command again"):
        results.notes("run/step2000/results_1.json", "lmsat_loss")


def test_a_report_s_tables_are_no_part_of_what_is_kept(tree, monkeypatch):
    load_results(tree)
    kept = (tree / cache.TABLE).read_bytes()
    write(tree / "report/sources.csv", "model,revision\na,step1\n")
    load_results(tree)
    assert (tree / cache.TABLE).read_bytes() == kept
    write(tree / "190M.csv", "_step,eval/downstream/arc_easy_val_rc_5shot_acc\n1,0.5\n")
    for _ in range(2):
        assert "190M" in set(load_results(tree).model)
    assert (tree / cache.TABLE).read_bytes() != kept

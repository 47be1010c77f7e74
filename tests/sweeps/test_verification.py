"""A tree of results under ``lmsat verify``: each kind of problem is found, repaired, and measured again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from result_files import new, write
from safetensors.numpy import save_file
from sweep_outputs import values_of

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.digests import with_digest
from lmsat_plugin.sweeps.verification import verify


@pytest.fixture(scope="module")
def swept(tmp_path_factory, save, documents):
    """Return a folder with two checkpoints, a sweep's configuration, and its results."""
    root = tmp_path_factory.mktemp("swept")
    (root / "run").mkdir()
    for seed, step in enumerate((1, 2)):
        save(root / "run" / f"step{step}", seed)
    (root / "text.txt").write_text(documents[3], "utf-8")
    config = {"models": ["run"], "tasks": ["lmsat_loss", "lmsat_head"], "corpus": "text.txt", "output": "out"}
    (root / "sweep.json").write_text(json.dumps({**config, "device": "cpu", "log_samples": True}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["sweep", "sweep.json"]) == 0
    return root


@pytest.fixture
def tree(swept, tmp_path, monkeypatch):
    """Return a copy of the sweep's output, beside copies of what was measured, in the working folder."""
    shutil.copytree(swept, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy" / "out"


def one(tree: Path, pattern: str) -> Path:
    return next(tree.glob(pattern))


def rewrite(path: Path, **notes) -> None:
    """Change lmsat's notes in a result file, and give it a digest that holds."""
    document = json.loads(path.read_bytes())
    document["config"]["lmsat"].update(notes)
    path.write_bytes(with_digest(document))


def cut(tree):
    path = one(tree, "run/step1/results_*")
    path.write_bytes(path.read_bytes()[:500])
    return path, "unreadable"


def edit(tree):
    path = one(tree, "run/step1/results_*")
    path.write_text(path.read_text().replace('"loss,none": ', '"loss,none": 1'))
    return path, "digest"


def lose_arrays(tree):
    path = one(tree, "run/step1/arrays_*")
    path.unlink()
    return path, "arrays"


def other_arrays(tree):
    path = one(tree, "run/step1/arrays_*")
    save_file({"loss/by_document": np.ones(3)}, path)
    return path, "arrays"


def change_samples(tree):
    path = one(tree, "run/step1/samples_*")
    path.write_text(path.read_text() + "{}\n")
    return path, "samples"


def move(tree):
    path = one(tree, "run/step1/results_*")
    place = tree / "run/step2" / path.name
    for file in path.parent.iterdir():
        shutil.move(file, place.parent)
    return place, "identity"


def copy(tree):
    path = one(tree, "run/step1/results_*")
    place = path.with_name("results_2026-01-01T00-00-00.000000.json")
    shutil.copy(path, place)
    return place, "duplicate"


def half_written(tree):
    place = tree / "run/step1/.results_2026-01-01T00-00-00.000000.json.abc.part"
    place.write_text("{")
    return place, "stray"


def arrays_alone(tree):
    place = tree / "run/step1/arrays_2026-01-01T00-00-00.000000.safetensors"
    shutil.copy(one(tree, "run/step1/arrays_*"), place)
    return place, "stray"


def broken_failures(tree):
    place = tree / "run/step1/failures.json"
    place.write_text('{"failures": 5}')
    return place, "unreadable"


DAMAGES = (
    *(cut, edit, lose_arrays, other_arrays, change_samples, move, copy, half_written, arrays_alone),
    *(broken_failures,),
)


def test_what_a_sweep_has_written_has_no_problem(tree, capsys):
    assert main(["verify", str(tree)]) == 0
    assert "no problem" in capsys.readouterr().out
    assert main(["verify", str(tree), "--json"]) == 0
    # Two results, each with arrays and the samples of two tasks.
    assert json.loads(capsys.readouterr().out) == {"files": 8, "problems": []}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_damage_is_found_and_put_aside(tree, damage, capsys):
    path, kind = damage(tree)
    assert main(["verify", str(tree), "--json", "--repair"]) == 1
    shown = capsys.readouterr()
    problems = json.loads(shown.out)["problems"]
    assert (path.relative_to(tree).as_posix(), kind) in [(problem["path"], problem["kind"]) for problem in problems]
    assert all(problem.keys() == {"path", "kind", "what"} and problem["what"] for problem in problems)
    assert not path.exists()
    assert ("lmsat sweep" in shown.err) == (kind not in ("stray", "duplicate"))
    assert path.with_name(path.name + ".quarantined").exists() == (kind != "stray" and damage is not lose_arrays)
    # What was put aside is no problem; what it was needed for still is.
    left = {problem.kind for problem in verify(tree).problems}
    assert left <= {"arrays", "samples"}


def test_a_sweep_measures_again_what_was_put_aside(tree, capsys):
    before = values_of(tree)
    edit(tree)
    one(tree, "run/step2/arrays_*").write_bytes(b"")
    assert main(["verify", str(tree), "--repair"]) == 1
    assert main(["sweep", "sweep.json"]) == 0
    assert main(["verify", str(tree)]) == 0, capsys.readouterr().out
    capsys.readouterr()
    assert main(["results", str(tree), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    shown = {(row["model"], row["revision"], row["task"], f"{row['metric']},none"): row["value"] for row in rows}
    assert {key: shown[key] for key in before if not key[-1].endswith("_stderr,none")} == {
        key: value for key, value in before.items() if not key[-1].endswith("_stderr,none")
    }


@pytest.mark.parametrize("change", ["weights", "times", "gone", "cut"])
def test_a_checkpoint_whose_files_changed_since(tree, save, change):
    folder = tree.parent / "run" / "step1"
    path = one(tree, "run/step1/results_*")
    document = json.loads(path.read_bytes())
    document["config"]["model_args"]["pretrained"] = str(folder)
    path.write_bytes(with_digest(document))
    weights = folder / "model.safetensors"
    if change == "weights":
        shutil.rmtree(folder)
        save(folder, 77)
    elif change == "times":
        os.utime(weights, (1, 1))
    elif change == "gone":
        shutil.rmtree(folder)
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    problems = verify(tree).problems
    assert [problem.kind for problem in problems] == (["checkpoint"] if change in ("weights", "cut") else [])
    assert all(problem.path.parent.name == "step1" and "run/step1" in problem.what for problem in problems)


def test_what_a_result_says_of_itself_has_to_agree(tree):
    path = one(tree, "run/step1/results_*")
    notes = json.loads(path.read_bytes())["config"]["lmsat"]
    loss = next(identity for identity in notes["identities"] if identity["task"] == "lmsat_loss")
    for key, value, said in (
        ("weights", "f" * 64, "other weights"),
        ("task", "lmsat_ngram", "holds no values of lmsat_ngram"),
        ("version", 99, "in its identity"),
    ):
        rewrite(path, identities=[{**loss, key: value}])
        [problem] = verify(tree).problems
        assert problem.kind == "identity"
        assert said in problem.what


def test_what_a_sweep_is_at_work_on_is_no_stray(tree):
    half_written(tree)
    lock = FileLock(tree / ".lmsat" / "claims" / "run--step1.lock")
    with lock:
        assert verify(tree).problems == []
    assert [problem.kind for problem in verify(tree).problems] == ["stray"]


def test_other_trees_and_nonsense(tmp_path, capsys):
    with pytest.raises(LmsatError, match="neither a folder nor a file"):
        verify(tmp_path / "missing")
    for number, notes in enumerate(
        (5, [], [[]], [{}], {"arrays": "a"}, {"supersedes": {"x": 5}, "samples_sha256": []})
    ):
        document = {"results": {"piqa": {"acc,none": 0.5}}, "config": {"lmsat": notes}}
        (tmp_path / f"results_{number}.json").write_text(json.dumps(document))
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "results_cut.json").write_text("{")
    found = verify(tmp_path)
    assert found.files == 7
    assert [(p.path.name, p.kind) for p in found.problems] == [("a", "arrays"), ("results_cut.json", "unreadable")]
    assert main(["verify", str(tmp_path)]) == 1
    assert "--repair" in capsys.readouterr().err


def test_paths_that_nobody_has_and_samples_that_are_no_file_are_no_traceback(tree):
    """Opening a FIFO would wait for ever."""
    samples = one(tree, "run/step1/samples_*")
    samples.unlink()
    os.mkfifo(samples)
    path = one(tree, "run/step2/results_*")
    document = json.loads(path.read_bytes())
    document["config"]["model_args"]["pretrained"] = "~nobody-here/run"
    path.write_bytes(with_digest(document))
    assert [(problem.path.name, problem.kind) for problem in verify(tree).problems] == [(samples.name, "samples")]


@pytest.mark.parametrize(
    ("noted", "what"),
    [
        ({"version": 0}, "is of version 0 of the probe 'head', and installed is version"),
        ({"settings": {"old": 1}}, "the probe 'head' of lmsat_head has no setting 'old' now"),
    ],
)
def test_results_of_another_version_of_a_probe_are_named_shown_and_measured_anew(tree, capsys, noted, what):
    path = one(tree, "run/step1/results_*")
    notes = json.loads(path.read_bytes())["config"]["lmsat"]
    notes["probes"]["head"].update(noted)
    for identity in notes["identities"]:
        if identity["task"] == "lmsat_head":
            identity.update(noted)
    document = json.loads(path.read_bytes())
    if "version" in noted:
        document["versions"]["lmsat_head"] = 0
    document["config"]["lmsat"] = notes
    path.write_bytes(with_digest(document))
    [problem] = verify(tree).problems
    assert (problem.path, problem.kind) == (path, "version")
    assert what in problem.what
    # It is as it was written: nothing is put aside.
    assert main(["verify", str(tree), "--repair"]) == 1
    assert path.exists()
    capsys.readouterr()
    assert main(["results", str(tree), "--task", "lmsat_head"]) == 0
    assert capsys.readouterr().out.count("effective_rank") == 2
    assert main(["sweep", "../copy/sweep.json"]) == 0
    assert "1 measured, 1 done before" in capsys.readouterr().out
    if "version" in noted:
        assert not verify(tree).problems


def test_text_in_the_place_of_a_number_is_a_problem_of_its_result(tree):
    path = one(tree, "run/step1/results_*")
    document = json.loads(path.read_bytes())
    document["results"]["lmsat_head"]["effective_rank,none"] = "tensor(3.)"
    path.write_bytes(with_digest(document))
    assert [(p.path, p.kind) for p in verify(tree).problems] == [(path, "identity")]


def test_samples_need_not_be_published_with_results(tree):
    for path in tree.glob("*/*/samples_*"):
        path.unlink()
    assert {problem.kind for problem in verify(tree).problems} == {"samples"}
    shutil.rmtree(tree / ".lmsat")
    assert not verify(tree).problems


def test_what_a_leaderboard_publishes_has_no_problem(tree, tmp_path):
    """Arrays go along with the results, samples do not."""
    assert main(["leaderboard", str(tree), "--hub", str(tmp_path / "hub")]) == 0
    published = sorted(path.name.partition("_")[0] for path in (tmp_path / "hub/results").rglob("*") if path.is_file())
    assert published == ["arrays", "results"]
    assert not verify(tmp_path / "hub").problems


def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path, monkeypatch, capsys):
    closed = tmp_path / "out/run/step1"
    write(closed / "results_1.json", new())
    scan = os.scandir

    def scan_the_rest(path):
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_the_rest)
    for options in ([], ["--repair"]):
        assert main(["verify", str(tmp_path / "out"), "--json", *options]) == 1
        problems = json.loads(capsys.readouterr().out)["problems"]
        what = "the folder cannot be read: Permission denied"
        assert problems == [{"path": "run/step1", "kind": "unreadable", "what": what}]
    assert closed.is_dir()


def test_notes_that_are_no_names_are_no_traceback(tree, capsys):
    rewrite(one(tree, "run/step1/results_*"), tasks={"lmsat_loss": ["loss"]}, probes=["loss"])
    assert main(["verify", str(tree), "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["files"] > 0

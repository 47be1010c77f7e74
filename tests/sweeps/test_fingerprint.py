"""A checkpoint whose files change under the sweep: no value is stored under the hash of other weights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from sweep_outputs import files_of

from lmsat_plugin import passing
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import PassingError
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.model.head_files import save_restricted_head
from lmsat_plugin.sweeps import job_runner
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.fingerprint import ChangedError, SeenFiles, fingerprint
from lmsat_plugin.sweeps.local import run_sweep

LOSSES: dict[str, float] = {}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(passing, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(job_runner, "_POLL_SECONDS", 0.01)


@pytest.fixture
def last(run_folder, save) -> Path:
    """Return the folder that a run keeps overwriting, the last of its checkpoints."""
    return save(run_folder / "checkpoint-last", 8)


@pytest.fixture
def losses(configure, save, tmp_path) -> dict[str, float]:
    """Return the loss of each state of the last checkpoint by the hash of its weights."""
    if not LOSSES:
        states = tmp_path / "states"
        states.mkdir()
        for seed in (7, 8):
            save(states / f"step{seed}", seed)
        assert main(["sweep", str(configure(models=[str(states)], output=str(tmp_path / "alone")))]) == 0
        LOSSES.update(values(tmp_path / "alone"))
    return LOSSES


def values(output: Path) -> dict[str, float]:
    documents = files_of(output).values()
    return {
        document["config"]["lmsat"]["checkpoint"]["weights_sha256"]: document["results"]["lmsat_loss"]["loss,none"]
        for document in documents
    }


def overwrite(last: Path, seed: int, random_checkpoint, *, times: bool = False) -> None:
    """Write other weights in place, of the same size, perhaps with the times of the old."""
    file = last / "model.safetensors"
    stat = file.stat()
    shutil.copyfile(random_checkpoint(seed, "gpt_neox") / "model.safetensors", file)
    if times:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def acting(monkeypatch, owner, name: str, act, *, before: bool) -> None:
    """Call a function before or after a method, with the first call's arguments alone."""
    method, calls = getattr(owner, name), []

    def patched(*arguments, **keywords):
        calls.append(arguments)
        if before:
            act(len(calls))
        result = method(*arguments, **keywords)
        if not before:
            act(len(calls))
        return result

    monkeypatch.setattr(owner, name, patched)


@pytest.mark.parametrize(
    ("owner", "name", "before"),
    [
        (job_runner, "fingerprint", True),
        (job_runner, "fingerprint", False),
        (CheckpointEvaluator, "load", False),
        (CheckpointEvaluator, "evaluate", False),
    ],
    ids=["before hashing", "before loading", "before measuring", "before writing"],
)
def test_weights_that_are_replaced_under_a_sweep(
    configure, last, losses, tmp_path, monkeypatch, random_checkpoint, owner, name, before
):
    def replace(call: int) -> None:
        if call == 1:
            overwrite(last, 7, random_checkpoint, times=name == "load")

    config = load_config(configure(models=[str(last)], tasks=["lmsat_loss"]))
    with pytest.MonkeyPatch.context() as patch:
        acting(patch, owner, name, replace, before=before)
        summary = run_sweep(config)
    assert (summary.measured, summary.failed, summary.left) == (1, {}, {})
    # One value, of the weights that are there now.
    [(sha256, loss)] = values(tmp_path / "out").items()
    assert loss == pytest.approx(losses[sha256], rel=1e-12)
    assert run_sweep(config).done_before == 1


def test_a_checkpoint_that_never_rests_is_named_and_measured_when_it_does(
    configure, run_folder, last, losses, tmp_path, random_checkpoint, capsys
):
    live = {"pretrained": str(last), "name": "live"}
    config = str(configure(models=[live, str(run_folder / "step0")], tasks=["lmsat_loss"]))
    with pytest.MonkeyPatch.context() as patch:
        load = CheckpointEvaluator.load

        def writing(self, folder, **keywords):
            load(self, folder, **keywords)
            if folder == last:
                overwrite(last, 7, random_checkpoint)

        patch.setattr(CheckpointEvaluator, "load", writing)
        assert main(["sweep", config]) == 1
    out, err = capsys.readouterr()
    assert "1 measured, 0 done before, 1 left" in out
    assert err.count("again in") == ChangedError.tries - 1
    assert f"Left: live main: {last}/model.safetensors changed while the checkpoint was measured" in err
    assert not list((tmp_path / "out/live").glob("*"))
    assert main(["sweep", config]) == 0
    assert values(tmp_path / "out").items() & losses.items()


def test_a_failure_of_files_that_are_being_copied_is_none(configure, last, tmp_path, random_checkpoint, monkeypatch):
    """What is cut while it is read, and whole a moment later, is measured."""
    file = last / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    acting(monkeypatch, job_runner, "reason_of", lambda call: overwrite(last, 7, random_checkpoint), before=True)
    summary = run_sweep(load_config(configure(models=[str(last)], tasks=["lmsat_loss"])))
    assert (summary.measured, summary.failed) == (1, {})
    assert not list((tmp_path / "out").rglob("failures.json"))


def test_a_folder_that_is_gone_is_no_failure(configure, run_folder, tmp_path, monkeypatch):
    """As when its mount is lost, or the run has deleted it."""
    acting(monkeypatch, CheckpointEvaluator, "load", lambda call: shutil.rmtree(run_folder / "step100"), before=True)
    with pytest.raises(ChangedError, match="nothing is gone"):
        SeenFiles.of(run_folder / "nothing")
    with pytest.raises(PassingError, match="lost is empty or gone: mount it again"):
        SeenFiles.of(run_folder / "lost" / "step10")
    summary = run_sweep(load_config(configure(models=[str(run_folder / "step100")])))
    assert list(summary.left) == ["run step100"]
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize("what", ["corpus", "head"])
def test_a_text_or_a_head_that_changes_under_a_sweep_ends_it(
    configure, corpus_file, tmp_path, monkeypatch, capsys, what
):
    head = tmp_path / "head.safetensors"

    def write(number: int) -> None:
        if what == "head":
            save_restricted_head(head, torch.ones(576, 3), torch.ones(3, 48) * (number + 1), {})
        elif number:
            corpus_file.write_text('{"text": "Others, and longer."}\n' * 30)

    write(0)
    arguments = {"model_args": {"head": str(head)}} if what == "head" else {}
    config = str(configure(tasks=["lmsat_loss"], **arguments))
    with pytest.MonkeyPatch.context() as patch:
        acting(patch, CheckpointEvaluator, "evaluate", write, before=True)
        assert main(["sweep", config]) == 2
    error = capsys.readouterr().err
    assert f"{what}=" in error
    assert "changed while it was measured: start the sweep again" in error
    assert not files_of(tmp_path / "out")
    assert main(["sweep", config]) == 0


def test_weights_with_the_size_and_the_time_of_the_old_are_others(
    configure, last, losses, tmp_path, random_checkpoint, capsys
):
    config = str(configure(models=[str(last)], tasks=["lmsat_loss"]))
    assert main(["sweep", config]) == 0
    overwrite(last, 7, random_checkpoint, times=True)
    assert main(["verify", str(tmp_path / "out")]) == 1
    assert "holds other files now than were measured" in " ".join(capsys.readouterr().out.split())
    assert main(["sweep", config]) == 0
    assert "1 measured" in capsys.readouterr().out
    assert values(tmp_path / "out") == pytest.approx(losses, rel=1e-12)


def test_files_that_were_only_copied_are_hashed_once(configure, last, tmp_path, monkeypatch, capsys):
    config = str(configure(models=[str(last)], tasks=["lmsat_loss"]))
    assert main(["sweep", config]) == 0
    shutil.copytree(last, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(last)
    (tmp_path / "copy").rename(last)
    hashed: list[int] = []
    acting(monkeypatch, job_runner, "fingerprint", hashed.append, before=True)
    for _ in range(3):
        assert main(["sweep", config]) == 0
        assert "0 measured, 1 done before" in capsys.readouterr().out
    assert hashed == [1]
    # What is noted of the files is no reason to believe other weights.
    [noted] = (tmp_path / "out/.lmsat/seen").iterdir()
    noted.write_text(noted.read_text().replace('"identity": "', '"identity": "0'))
    assert main(["sweep", config]) == 0
    assert hashed == [1, 2]


def test_code_of_its_own_that_the_configuration_names_identifies_a_model(save, tmp_path):
    folder = save(tmp_path / "model", 1)
    (folder / "modeling.py").write_text("A = 1")
    before, seen = fingerprint(folder), SeenFiles.of(folder)
    (folder / "modeling.py").write_text("A = 2")
    assert fingerprint(folder) == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Model"}}))
    before = fingerprint(folder)
    (folder / "modeling.py").write_text("A = 3")
    assert fingerprint(folder) != before
    with pytest.raises(ChangedError):
        seen.check()

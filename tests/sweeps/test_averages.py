"""Averages of checkpoints in a sweep: measured as a folder of the same weights would be, and told apart from others."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from report_trees import read_analyses
from safetensors.torch import load_file, save_file
from sweep_outputs import files_of

from lmsat_plugin import load_results
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.page.chart_data import chart_data
from lmsat_plugin.page.commands import NAME
from lmsat_plugin.results.series import labelled
from lmsat_plugin.sweeps import averages
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.local import run_sweep
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.sweeps.verification import verify


def entry(folder: Path, *revisions: str, **more: object) -> list[dict[str, object]]:
    return [{"pretrained": str(folder), "revisions": list(revisions), **more}]


def losses(folder: Path) -> dict[str, float]:
    table = load_results(folder)
    table = table[table["metric"] == "loss"]
    return dict(zip(table["revision"], table["value"], strict=True))


@pytest.fixture
def made(monkeypatch):
    """Return a list of how many checkpoints each average was made of, in the order in which they were made."""
    counts: list[int] = []

    def counted(function):
        def call(*arguments, **options):
            counts.append(next(len(each) for each in arguments if isinstance(each, list)))
            return function(*arguments, **options)

        return call

    for name in ("average_checkpoints", "move_average"):
        monkeypatch.setattr(averages, name, counted(getattr(averages, name)))
    return counts


def test_an_average_is_measured_as_its_weights_are(configure, run_folder, made, tmp_path):
    path = configure(models=entry(run_folder, "all", "average:2", "ema:0.5", "average:10..100"), keep=0)
    summary = run_sweep(load_config(path))
    assert (summary.measured, summary.failed) == (9, {})
    # A moving average goes on from the one before.
    assert sorted(made) == [1, 1, 1, 2, 2, 2]
    out = tmp_path / "out"
    found = losses(out)
    assert found["average:2@step100"] == found["average:10..100@step100"]
    steps = ("step0", "step10", "step100")
    weights = [load_file(run_folder / step / "model.safetensors") for step in steps]
    moved = weights[0]
    for number, name in ((1, "step10"), (2, "step100")):
        mean = {key: (weights[number - 1][key].double() + value.double()) / 2 for key, value in weights[number].items()}
        moved = {key: moved[key].double() / 2 + value.double() / 2 for key, value in weights[number].items()}
        for how, tensors in (("average:2", mean), ("ema:0.5", moved)):
            folder = shutil.copytree(run_folder / name, tmp_path / "plain" / f"{how[:3]}{name[4:]}")
            save_file({key: tensor.float() for key, tensor in tensors.items()}, folder / "model.safetensors")
    plain = tmp_path / "plain-results"
    assert run_sweep(load_config(configure(models=[str(tmp_path / "plain")], output=str(plain)))).measured == 4
    expected = losses(plain)
    for how in ("average:2", "ema:0.5"):
        for name in ("step10", "step100"):
            assert found[f"{how}@{name}"] == expected[f"{how[:3]}{name[4:]}"]
    assert found["ema:0.5@step0"] == found["step0"]
    assert run_sweep(load_config(path)).measured == 0
    assert len(list((out / ".lmsat" / "averaged").glob("*/*/model"))) <= 2


def test_what_results_say_of_an_average(configure, run_folder, tmp_path):
    run_sweep(load_config(configure(models=entry(run_folder, "step100", "average:3"))))
    [notes] = [
        document["config"]["lmsat"]["checkpoint"]
        for document in files_of(tmp_path / "out").values()
        if "average" in document["config"]["lmsat"]["checkpoint"]
    ]
    assert (notes["revision"], notes["step"]) == ("average:3@step100", 100)
    assert notes["average"]["how"] == "average:3"
    parts = notes["average"]["of"]
    assert [(part["revision"], part["step"]) for part in parts] == [("step0", 0), ("step10", 10), ("step100", 100)]
    assert len({part["weights_sha256"] for part in parts}) == 3
    # The command measures one of them by its name, as a job of Slurm does.
    config = str(configure(models=entry(run_folder, "step100", "average:3")))
    assert main(["sweep", config, "--only", "run@average:3@step100"]) == 0
    assert main(["sweep", config, "--only", "run@average:3"]) == 2
    # The two checkpoints of step 100 are two series.
    table = labelled(load_results(tmp_path / "out"))
    assert set(table["model"]) == {"run", "run (average:3)"}
    assert set(table["step"]) == {100}


def test_a_part_that_changes_has_its_averages_measured_again(configure, run_folder, save, made):
    path = configure(models=entry(run_folder, "average:2"))
    assert run_sweep(load_config(path)).measured == 2
    shutil.rmtree(run_folder / "step0")
    save(run_folder / "step0", 7)
    assert run_sweep(load_config(path)).measured == 1
    assert len(made) == 3


@pytest.mark.parametrize("change", ["weights", "times", "gone", "cut"])
def test_verify_tells_which_part_has_changed_since(configure, run_folder, save, tmp_path, change):
    run_sweep(load_config(configure(models=entry(run_folder, "average:2", "ema:0.5"), keep=0)))
    folder = run_folder / "step0"
    weights = folder / "model.safetensors"
    if change in ("weights", "gone"):
        shutil.rmtree(folder)
    if change == "weights":
        save(folder, 7)
    elif change == "times":
        os.utime(weights, (1, 1))
    elif change == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    problems = verify(tmp_path / "out").problems
    # The mean of the last two has no part in it.
    assert len(problems) == (4 if change in ("weights", "cut") else 0)
    assert {problem.kind for problem in problems} <= {"checkpoint"}
    assert all(str(folder) in problem.what for problem in problems)


def test_the_command_of_the_page_measures_an_average_again(configure, run_folder, tmp_path, monkeypatch):
    changes = {"tasks": ["lmsat_loss", "lmsat-quantization"], "metadata": {"changed_tokens": 100}}
    models = entry(run_folder, "average:2", "ema:0.5", name="my run")
    run_sweep(load_config(configure(models=models, model_args={"dtype": "bfloat16"}, **changes)))
    content = chart_data(read_analyses(tmp_path / "out")).content
    [command] = content["commands"]
    monkeypatch.chdir(tmp_path)
    for name in ("average:2@step100", "ema:0.5@step0"):
        program, *arguments = shlex.split(command.replace(NAME, name))
        assert program == "lmsat"
        assert main(arguments) == 0
    again, first = (
        load_results(folder).set_index(["model", "revision", "metric"])["value"].to_dict()
        for folder in (tmp_path / "again", tmp_path / "out")
    )
    assert {key[1] for key in again} == {"average:2@step100", "ema:0.5@step0"}
    assert again == {key: first[key] for key in again}


def test_what_cannot_be_averaged_fails_alone(configure, run_folder, save, tmp_path):
    shutil.rmtree(run_folder / "step0")
    save(run_folder / "step0", 0, name="llama")
    summary = run_sweep(load_config(configure(models=entry(run_folder, "all", "average:2"))))
    assert summary.measured == 4
    [reason] = summary.failed.values()
    assert "average checkpoints of one architecture" in reason[0] if isinstance(reason, list) else reason
    with pytest.raises(LmsatError, match="run has 3 of these checkpoints: average fewer"):
        _ = Plan(load_config(configure(models=entry(run_folder, "average:4")))).jobs


def test_files_that_change_while_they_are_averaged(configure, run_folder, save, monkeypatch):
    """The average is thrown away, and made of what is there then."""
    real, tries = averages.average_checkpoints, []

    def meanwhile(folders, out):
        real(folders, out)
        if not tries:
            (folders[0] / "model.safetensors").touch()
        tries.append(out)

    monkeypatch.setattr(averages, "average_checkpoints", meanwhile)
    assert run_sweep(load_config(configure(models=entry(run_folder, "average:3")))).measured == 1
    assert len(tries) == 2


def test_checkpoints_in_training_formats(configure, run_folder, tmp_path):
    """They are converted first."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for step in ("step0", "step10"):
        torch.save(load_file(run_folder / step / "model.safetensors"), raw / f"{step}.pt")
    assert run_sweep(load_config(configure(models=entry(run_folder, "average:2@step10")))).measured == 1
    output = tmp_path / "raw-results"
    models = entry(raw, "average:2", config=str(run_folder / "step0"))
    assert run_sweep(load_config(configure(models=models, output=str(output)))).measured == 1
    [ours], [theirs] = losses(output).values(), losses(tmp_path / "out").values()
    assert ours == theirs
    assert verify(output).problems == []
    torch.save(load_file(run_folder / "step100" / "model.safetensors"), raw / "step0.pt")
    [problem] = verify(output).problems
    assert problem.what == f"{raw / 'step0.pt'} holds other files now than were converted"
    assert chart_data(read_analyses(output)).content["commands"] == []

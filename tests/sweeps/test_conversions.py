"""Checkpoints in training formats are converted once each, resumed, and measured as the models that they hold."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
import time

import pytest
import torch
from evaluation import TASKS
from sweep_outputs import files_of, values_of
from tiny_models import make_model
from training_formats import MakesAFile, save_distributed, save_lightning, save_wrapped

from lmsat_plugin import measure, passing
from lmsat_plugin.cli.main import main
from lmsat_plugin.conversion.recipe import Recipe
from lmsat_plugin.sweeps import job_runner
from lmsat_plugin.sweeps.config import config_to_yaml, load_config
from lmsat_plugin.sweeps.jobs import find_jobs
from lmsat_plugin.sweeps.local import run_sweep

PROBES = [task.removeprefix("lmsat_") for task in TASKS]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(passing, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(job_runner, "_POLL_SECONDS", 0.01)


@pytest.fixture(scope="module")
def config(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    make_model("llama").config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(tmp_path):
    """Return a run's folder, as three programs would have written it."""
    folder = tmp_path / "trained"
    folder.mkdir()
    save_distributed(folder / "step-10", 0)
    save_wrapped(folder / "ckpt_200.pt", 1)
    save_lightning(folder / "epoch=1-step=3000.ckpt", 2)
    return folder


@pytest.fixture
def converted(monkeypatch):
    """Return the names of what is converted, as it is."""
    names = []
    make = Recipe.make

    def noted(self, source, *arguments, **keywords):
        names.append(source.name)
        return make(self, source, *arguments, **keywords)

    monkeypatch.setattr(Recipe, "make", noted)
    return names


def entry(run, **keys):
    return [{"pretrained": str(run), **{key: str(value) if key == "config" else value for key, value in keys.items()}}]


def losses(output) -> dict[str, float]:
    return {key[1]: value for key, value in values_of(output).items() if key[2:] == ("lmsat_loss", "loss,none")}


def test_all_ways_give_the_numbers_of_the_original(run, config, configure, tokenizer, corpus_file, tmp_path, capsys):
    """The original model, a sweep of all probes, one of the head alone, and the folder of `lmsat convert`."""
    names = {"step-10": "step-10", "ckpt_200.pt": "ckpt_200", "epoch=1-step=3000.ckpt": "epoch__1-step__3000-"}
    for tasks in (TASKS, ["lmsat_head"]):
        output = tmp_path / f"out-{len(tasks)}"
        path = configure(models=entry(run, config=config), tasks=tasks, output=str(output), max_tokens=None)
        assert main(["sweep", str(path)]) == 0
    capsys.readouterr()
    for seed, (source, name) in enumerate(names.items()):
        model = make_model("llama", seed)
        folder = tmp_path / f"converted-{seed}"
        assert main(["convert", str(run / source), str(folder), "--config", str(config)]) == 0
        expected = measure(model, PROBES, tokenizer=tokenizer, corpus=str(corpus_file)).metrics
        assert measure(folder, PROBES, corpus=str(corpus_file)).metrics == expected
        for tasks in (TASKS, ["lmsat_head"]):
            found = {
                f"{key[2]}/{key[3].partition(',')[0]}": value
                for key, value in values_of(tmp_path / f"out-{len(tasks)}").items()
                if key[1].startswith(name)
            }
            own = {key: value for key, value in expected.items() if isinstance(value, float)}
            own = {key: value for key, value in own.items() if key.partition("/")[0] in tasks}
            assert own.items() <= found.items()
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(": 30 tensors of the format of torch.distributed.checkpoint, without the prefix 'model.' "
                            "of the names; 30 other tensors are left out")  # fmt: skip
    assert main(["verify", str(tmp_path / "out-3")]) == 0
    save_wrapped(run / "ckpt_200.pt", 7)
    assert main(["verify", str(tmp_path / "out-3")]) == 1
    assert "ckpt_200.pt holds other files now than were converted" in capsys.readouterr().out.replace("\n", "")


def test_a_result_says_how_it_was_converted(run, config, configure, tmp_path, caplog):
    shutil.rmtree(run / "step-10")
    path = configure(models=entry(run, config=config, rename=[["^_orig_mod", "module"]]), tasks=["lmsat_head"])
    assert run_sweep(load_config(path)).measured == 2
    notes = [document["config"]["lmsat"]["checkpoint"] for document in files_of(tmp_path / "out").values()]
    common = {"config": str(config), "rename": [["^_orig_mod", "module"]], "tensors": 30}
    assert {note["step"]: note["conversion"] for note in notes} == {
        200: {**common, "format": "torch.save", "stripped": "module."},
        3000: {**common, "format": "Lightning", "stripped": "model.", "unread": 1},
    }
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "trained: names of tensors begin with 'module.', which is left out" in said


def test_nothing_is_converted_twice(run, config, config_copy, configure, converted, tmp_path):
    """Neither by the next sweep, nor for another task while it is kept, nor where only times of the source changed."""
    options = {"models": entry(run, config=config_copy), "tasks": ["lmsat_head"], "keep": "all"}
    for measured, tasks in ((3, ["lmsat_head"]), (0, ["lmsat_head"]), (3, ["lmsat_head", "lmsat_loss"])):
        assert run_sweep(load_config(configure(**{**options, "tasks": tasks}))).measured == measured
        assert sorted(converted) == ["ckpt_200.pt", "epoch=1-step=3000.ckpt", "step-10"]
    before = losses_now(tmp_path / "out")
    # A source that is written again as it was is converted, and nothing is measured.
    converted.clear()
    os.utime(run / "ckpt_200.pt")
    summary = run_sweep(load_config(configure(**{**options, "tasks": ["lmsat_head", "lmsat_loss"]})))
    assert (summary.measured, summary.done_before, converted) == (0, 3, ["ckpt_200.pt"])
    assert run_sweep(load_config(configure(**{**options, "tasks": ["lmsat_head", "lmsat_loss"]}))).measured == 0
    assert converted == ["ckpt_200.pt"]
    # One that changes is converted and measured, also where a shard below the folder does.
    converted.clear()
    save_distributed(run / "step-10", 7)
    assert run_sweep(load_config(configure(**{**options, "tasks": ["lmsat_loss"]}))).measured == 1
    assert converted == ["step-10"]
    changed = {name for name, loss in losses_now(tmp_path / "out").items() if loss != before[name]}
    assert changed == {"step-10"}
    # Other settings are another conversion, which here gives the same weights.
    converted.clear()
    path = configure(
        **{**options, "models": entry(run, config=config_copy, rename=[["nothing", ""]]), "tasks": ["lmsat_loss"]}
    )
    assert run_sweep(load_config(path)).measured == 0
    assert len(converted) == 3
    values = json.loads((config_copy / "config.json").read_text())
    (config_copy / "config.json").write_text(json.dumps({**values, "rms_norm_eps": 0.1}))
    assert run_sweep(load_config(path)).measured == 3


@pytest.fixture
def config_copy(config, tmp_path):
    """Return a folder of a configuration that a test may change."""
    return shutil.copytree(config, tmp_path / "config")


def losses_now(output) -> dict[str, float]:
    """Return the loss of each checkpoint that no later one replaces."""
    from lmsat_plugin import load_results

    table = load_results(output)
    table = table[table["metric"] == "loss"]
    return dict(zip(table["revision"], table["value"], strict=True))


def test_what_is_kept(run, config, configure, tmp_path):
    for keep in (0, 1, "all"):
        output = tmp_path / f"out-{keep}"
        path = configure(models=entry(run, config=config), tasks=["lmsat_head"], keep=keep, output=str(output))
        assert run_sweep(load_config(path)).measured == 3
        kept = list((output / ".lmsat" / "converted").glob("*/*/model"))
        assert len(kept) == {0: 0, 1: 1, "all": 3}[keep]
        assert not list((output / ".lmsat").rglob("*.part"))


def test_a_converted_folder_that_was_changed_is_converted_again(run, config, configure, converted, tmp_path):
    options = {"models": entry(run, config=config), "keep": "all"}
    assert run_sweep(load_config(configure(**options, tasks=["lmsat_head"]))).measured == 3
    for folder in (tmp_path / "out" / ".lmsat" / "converted").glob("*/*/model"):
        make_model("llama", 9).save_pretrained(folder)
    assert run_sweep(load_config(configure(**options, tasks=["lmsat_loss"]))).measured == 3
    assert len(converted) == 6
    clean = configure(**options, tasks=["lmsat_loss"], output=str(tmp_path / "clean"))
    assert run_sweep(load_config(clean)).measured == 3
    assert losses(tmp_path / "out") == losses(tmp_path / "clean")


def test_failures_are_of_one_checkpoint(run, config, configure, converted, tmp_path):
    """And are not tried again until something changes."""
    marker = tmp_path / "made"
    save_wrapped(run / "step5.pt", architecture="gpt2")
    torch.save(MakesAFile(marker), run / "step6.pt")
    (run / "step-10" / ".metadata").unlink()
    path = configure(models=entry(run, config=config), tasks=["lmsat_head"])
    summary = run_sweep(load_config(path))
    assert (summary.measured, len(summary.failed)) == (2, 3)
    for name, says in (("step5", "`rename`"), ("step6", "holds more than tensors"), ("step-10", "saving was cut off")):
        assert says in summary.failed[f"trained {name}"]
        assert "\n" not in summary.failed[f"trained {name}"]
    assert not marker.exists()
    converted.clear()
    summary = run_sweep(load_config(path))
    assert (summary.measured, len(summary.failed), converted) == (0, 3, [])
    save_wrapped(run / "step5.pt")
    assert run_sweep(load_config(path)).measured == 1
    assert converted == ["step5.pt"]


def test_without_a_recipe_they_fail_with_advice(run, configure):
    summary = run_sweep(load_config(configure(models=[str(run)], tasks=["lmsat_head"])))
    assert summary.measured == 0
    forms = {"step-10": "torch.distributed.checkpoint", "ckpt_200": "torch.save", "epoch=1-step=3000": "Lightning"}
    for name, form in forms.items():
        reason = summary.failed[f"trained {name}"]
        assert f"is not in transformers' format but in that of {form}: convert it with `lmsat convert`" in reason
        assert reason.endswith("or set `config` in a sweep's configuration")


def test_a_configuration_of_the_hub(run, config, configure, empty_hub, warm_with_hub, tmp_path):
    """Nothing but the configuration and the tokenizer is fetched, once; a name that is not there is said."""
    folder = shutil.copytree(config, tmp_path / "repository")
    make_model("llama", 5).save_pretrained(folder)
    empty_hub.branches["org/whole"] = {"main": folder}
    path = configure(models=entry(run, config="org/whole"), tasks=["lmsat_head"])
    empty_hub.forget()
    running = warm_with_hub.start("sweep", str(path))
    assert running.wait() == 0, running.output
    assert "3 measured" in running.output
    sent = {name.rpartition("/")[2] for name in empty_hub.sent}
    assert "config.json" in sent
    assert not [name for name in sent if name.endswith(".safetensors")]
    path = configure(models=entry(run, config="org/nothing"), tasks=["lmsat_head"], output=str(tmp_path / "other"))
    running = warm_with_hub.start("sweep", str(path))
    assert running.wait() == 1
    assert "the Hub has no org/nothing" in running.output
    assert "0 measured, 0 done before, 3 failed" in running.output


def test_workers_get_the_same_recipe(run, config, configure, tmp_path):
    keys = {"config": config, "rename": [["^a\\.(.)", r"\1"]], "convert": "cp {input} {output}", "convert_timeout": 5.5}
    whole = load_config(configure(models=entry(run, **keys)))
    (tmp_path / "copy.yaml").write_text(config_to_yaml(whole))
    assert load_config(tmp_path / "copy.yaml") == whole
    [job, *_] = find_jobs(whole)
    assert job.recipe == Recipe(
        config=str(config), rename=(("^a\\.(.)", r"\1"),), command="cp {input} {output}", timeout=5.5
    )


def test_a_script_that_changes_is_another_conversion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digests = set()
    for text in ("one", "two"):
        (tmp_path / "convert.py").write_text(text)
        digests.add(Recipe(command="python convert.py {input} {output}").digest)
        digests.add(Recipe(command="python other.py {input} {output}").digest)
    assert len(digests) == 3


def test_checkpoints_of_transformers_are_left_as_they_are(run, config, configure, save, converted):
    save(run / "step99", 3, "llama")
    summary = run_sweep(load_config(configure(models=entry(run, config=config), tasks=["lmsat_head"])))
    assert summary.measured == 4
    assert len(converted) == 3


CONVERTER = """
import os, pathlib, sys, time
source, out = map(pathlib.Path, sys.argv[1:])
with open({calls!r}, "a") as file:
    file.write(source.stem + "\\n")
print("converting", source.stem)
if source.stem == "step1":
    raise RuntimeError("no way to read step1")
if source.stem == "step2":
    time.sleep(1000)
if source.stem == "step3":
    sys.exit()
out.mkdir()
if source.stem == "step5":
    (out / "model.pt").write_bytes(source.read_bytes().removeprefix(b"mine"))
"""


def command(tmp_path, script: str) -> str:
    path = tmp_path / "convert.py"
    path.write_text(textwrap.dedent(script))
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))} {{input}} {{output}}"


def test_commands(tmp_path, config, configure):
    """Each runs once a checkpoint; what it writes may itself be a state dict that `config` goes with."""
    run, calls = tmp_path / "trained", tmp_path / "calls"
    run.mkdir()
    (tmp_path / "hanging").mkdir()
    for step in (1, 2, 3, 4, 5):
        path = save_wrapped((tmp_path / "hanging" if step == 2 else run) / f"step{step}.pt", step)
        path.write_bytes(b"mine" + path.read_bytes())
    model = {"convert": command(tmp_path, CONVERTER.format(calls=str(calls)))}
    models = [*entry(run, config=config, **model), *entry(tmp_path / "hanging", **model, convert_timeout=0.5)]
    path = configure(models=models, tasks=["lmsat_loss"])
    summary = run_sweep(load_config(path))
    assert summary.measured == 1
    for step, says in {
        1: "ended with exit code 1: RuntimeError: no way to read step1; what it printed is in ",
        3: "wrote nothing to its {output}",
        4: "wrote nothing to its {output}",
    }.items():
        assert says in summary.failed[f"trained step{step}"]
    assert "was not through after 0.5 s, and was ended" in summary.failed["hanging step2"]
    assert [name for name in calls.read_text().split() if name != "step2"] == ["step1", "step3", "step4", "step5"]
    before = calls.read_text()
    assert run_sweep(load_config(path)).done_before == 1
    assert calls.read_text() == before
    [log] = [path for path in (tmp_path / "out" / ".lmsat" / "conversion_logs").iterdir() if "step5" in path.name]
    assert log.read_text() == "converting step5\n"
    original = make_model("llama", 5)
    corpus = load_config(path).corpora[0].corpus
    expected = measure(original, ["loss"], tokenizer=str(config), corpus=corpus, max_tokens=600)
    assert losses(tmp_path / "out") == {"step5": expected.metrics["lmsat_loss/loss"]}


def test_a_source_that_changes_meanwhile(tmp_path, config, configure, monkeypatch):
    """What was converted of it is thrown away, and it is converted again."""
    run = tmp_path / "trained"
    run.mkdir()
    save_wrapped(run / "step1.pt", 0)
    make, calls = Recipe.make, []

    def writing(self, source, *arguments, **keywords):
        notes = make(self, source, *arguments, **keywords)
        if not calls:
            save_wrapped(source, 1)
        calls.append(source)
        return notes

    monkeypatch.setattr(Recipe, "make", writing)
    path = configure(models=entry(run, config=config), tasks=["lmsat_head"])
    assert run_sweep(load_config(path)).measured == 1
    assert len(calls) == 2
    [note] = [document["config"]["lmsat"]["checkpoint"] for document in files_of(tmp_path / "out").values()]
    assert note["files"]["step1.pt"][0] == (run / "step1.pt").stat().st_size
    assert run_sweep(load_config(path)).done_before == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_the_command(number, tmp_path, config, configure, start):
    run, pid = tmp_path / "trained", tmp_path / "pid"
    run.mkdir()
    save_wrapped(run / "step1.pt")
    script = f"""
        import os, pathlib, time
        pathlib.Path({str(pid)!r} + "x").write_text(str(os.getpid()))
        os.rename({str(pid)!r} + "x", {str(pid)!r})
        time.sleep(1000)
    """
    model = {"convert": command(tmp_path, script)}
    running = start(configure(models=entry(run, **model), tasks=["lmsat_head"]))
    deadline = time.monotonic() + 120
    while not pid.exists():
        assert running.returncode is None, running.output
        assert time.monotonic() < deadline, running.output
        time.sleep(0.02)
    running.send(number)
    running.wait()
    while os.path.exists(f"/proc/{pid.read_text()}"):  # noqa: PTH110
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"rename": [["a", "b"]]}, "rename of .*: nothing is converted without 'config': add it"),
        ({"convert_timeout": 5}, "convert_timeout of .*: nothing is converted without 'convert'"),
        ({"config": "x", "rename": [["(", ""]]}, r"rename: '\(' with '' is no replacement"),
        ({"config": "x", "rename": [["a"]]}, "rename"),
        ({"config": "x", "rename": {"a": "b"}}, "rename"),
        ({"convert": "cp {input}"}, r"has no \{output\}"),
        ({"convert": "cp {input} {output}", "convert_timeout": 0}, "convert_timeout"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(keys, says, run, configure, capsys):
    assert main(["sweep", str(configure(models=entry(run, **keys)))]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert re.search(says, line), line

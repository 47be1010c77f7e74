"""Configurations of sweeps: those that are wrong are named with their line, before anything is measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sweep_outputs import files_of

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.yaml_files import SHIPPED


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": ["lmsat_los"]}, "did you mean lmsat_loss?"),
        ({"tasks": ["no_such_task_at_all"]}, "no task is named"),
        ({"corpus": "no/such/file.txt"}, "no/such/file.txt"),
        ({"models": ["/no/such/folder"]}, "there is no such folder"),
        ({"metadata": {"max_tokns": 5}}, "max_tokns"),
        ({"model_args": {"revision": "main"}}, "'revision' is the sweep's business"),
        ({"trackers": {"wandbee": {}}}, "wandbee"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_measured(configure, tmp_path, capsys, changes, says):
    assert main(["sweep", str(configure(**changes))]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not files_of(tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "models: [x]\ntasks: [y]\noutput: z\nbach_size: 3\n",
            "line 4: unknown key 'bach_size': did you mean 'batch_size'?",
        ),
        ("models:\n  - pretrained: x\n    revision: main\ntasks: y\noutput: z\n", "line 3: unknown key 'revision'"),
        ("models: [x]\ntasks: y\noutput: z\nmax_tokens: many\n", "line 4: max_tokens: many is not right"),
        ("models: [x]\ntasks: y\noutput: z\nslurm:\n  time: -1\n", "line 5: time: -1 is not right"),
        ("models: [x]\ntasks: y\n", "the key 'output' is missing"),
        ("models: [x]\ntasks: y\noutput: z\nkeep: [\n", "no valid YAML"),
        ("models: [x]\ntasks: y\noutput: z\ncorpus: a\ncorpora: [b]\n", "line 5: give `corpus` or `corpora`"),
        ("models: [{pretrained: x, revisions: []}]\ntasks: y\noutput: z\n", "line 1: revisions: [] is not right"),
        ("nothing", "is not a list of `key: value` lines"),
    ],
)
def test_a_wrong_configuration_is_named_with_its_line(tmp_path, text, says):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(LmsatError) as raised:
        load_config(path)
    assert says in str(raised.value)


@pytest.mark.parametrize("name", ["[brackets].txt", "%percent.txt", "{brace.txt", "plain.txt"])
def test_a_corpus_on_the_command_line_may_have_a_name_that_is_no_yaml(configure, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("Some words to measure. " * 50)
    arguments = ["sweep", str(configure()), f"corpus={name}", "tasks=lmsat_loss", "--only", "run@step0"]
    assert main(arguments) == 0, capsys.readouterr().err
    [document] = files_of(tmp_path / "out").values()
    assert document["config"]["lmsat"]["corpus"]["corpus"] == name


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1", "1e300"])
def test_watching_takes_a_number_of_seconds(configure, capsys, seconds):
    assert main(["sweep", str(configure()), f"--watch={seconds}"]) == 2
    assert "is not a number of seconds" in capsys.readouterr().err


def test_shipped_configurations_are_valid():
    sweeps = [path for path in SHIPPED.glob("*.yaml") if "lmsat sweep" in path.read_text()]
    assert {path.stem for path in sweeps} >= {"demo", "pythia", "folder", "slurm", "olmo"}
    for path in sweeps:
        assert load_config(path).tasks


def test_paths_are_from_here_or_else_from_the_files_own_folder(tmp_path, monkeypatch):
    place = tmp_path / "elsewhere"
    for name in ("run", "mine", "base", "sample"):
        (place / name).mkdir(parents=True)
    (place / "text.txt").write_text("x")
    text = (
        "models: [run, {pretrained: [run, org/name], tokenizer: base}]\ntasks: lmsat_loss\noutput: out\n"
        "corpus: [text.txt, sample]\ninclude_path: mine\nmodel_args: {peft: base, dtype: base}\n"
    )
    (place / "sweep.yaml").write_text(text)
    monkeypatch.chdir(place)
    here = load_config(Path("sweep.yaml"))
    assert [entry.pretrained for entry in here.models] == ["run", ["run", "org/name"]]
    assert here.model_args == {"peft": "base", "dtype": "base"}
    monkeypatch.chdir(tmp_path)
    there = load_config(Path("elsewhere/sweep.yaml"))
    assert [entry.pretrained for entry in there.models] == ["elsewhere/run", ["elsewhere/run", "org/name"]]
    assert there.models[1].tokenizer == "elsewhere/base"
    assert [entry.corpus for entry in there.corpora] == ["elsewhere/text.txt", "sample"]
    assert there.include_path == ["elsewhere/mine"]
    assert there.model_args == {"peft": "elsewhere/base", "dtype": "base"}
    assert there.output == Path("out")
    # What is given on the command line is from here.
    assert load_config(Path("elsewhere/sweep.yaml"), {"include_path": ["mine"]}).include_path == ["mine"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: x\ntask: lmsat_loss\noutput: o\n", "line 2: unknown key 'task': did you mean 'tasks'?"),
        ("corpora: [sample]\ntokenizers: [x]\noutput: o\n", "is a configuration of `lmsat ngram --config`"),
    ],
)
def test_what_a_configuration_lacks_or_is_meant_for_is_named(text, said, tmp_path):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(LmsatError, match=re.escape(said)):
        load_config(tmp_path / "sweep.yaml")

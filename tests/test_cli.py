"""The command: its lists, its refusals, and the demonstration on a small scale."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from lmsat_plugin import demo
from lmsat_plugin.cli import main


def test_probes_lists_what_is_found(capsys):
    assert main(["probes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"loss", "anisotropy", "head"} <= {probe["name"] for probe in found["probes"]}
    assert {"sample", "pile"} <= {corpus["name"] for corpus in found["corpora"]}
    assert all(probe["origin"] for probe in found["probes"])


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["probes", "--jsno"])
    assert exit_.value.code == 2
    assert "--jsno" in capsys.readouterr().err


def test_demo_refuses_a_folder_that_is_there(tmp_path, capsys):
    (tmp_path / "something").touch()
    assert main(["demo", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmsat: error:")
    assert str(tmp_path) in error
    assert error.count("\n") == 1


def test_demo_trains_and_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "WIDTHS", (16,))
    monkeypatch.setattr(demo, "STEPS", (0, 30))
    assert main(["demo", "--output", str(tmp_path / "out")]) == 0
    losses = []
    for step in (0, 30):
        [file] = (tmp_path / "out" / "results" / "neox-w16" / f"step{step}").glob("results_*.json")
        results = json.loads(file.read_text())
        losses.append(results["results"]["lmsat_loss"]["loss,none"])
        assert (tmp_path / "out" / "checkpoints" / "neox-w16" / f"step{step}" / "tokenizer.json").exists()
        assert results["config"]["lmsat"]["corpus"]["tokens"] == 50_000
    assert losses[1] < losses[0]
    assert f"{losses[1]:.4g}" in capsys.readouterr().out


def test_eval_works_without_the_start_up_hook(checkpoint, corpus_file, tmp_path):
    arguments = ["eval", "--model", "lmsat", "--model_args", f"pretrained={checkpoint('llama')}"]
    arguments += ["--tasks", "lmsat_head", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "lmsat_plugin.cli", *arguments],
        env={**os.environ, "LMSAT_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [file] = (tmp_path / "out").rglob("results_*.json")
    assert "singular_entropy,none" in json.loads(file.read_text())["results"]["lmsat_head"]

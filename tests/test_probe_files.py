"""A probe in a file is measured without a package, and its code is part of what identifies its results."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import torch
from probes_in_files import SURPRISE, write_probe
from probes_in_files import no_other_files as no_other_files
from sweep_outputs import files_of
from warm_lmsat import shared

from lmsat_plugin import LmsatError, Measurement, Need, Probe, measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.plugins import plugins, use_probe_files
from lmsat_plugin.probe_files import source_sha256

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sweep(checkpoint, corpus_file, tmp_path, no_other_files):
    """Return a function that sweeps one checkpoint with the probe of a file, and returns its results, oldest first."""

    def sweep(file: Path, *arguments: str) -> list[dict]:
        options = ["--corpus", str(corpus_file), "--output", str(tmp_path / "out"), "max_tokens=300", "device=cpu"]
        assert main(["sweep", str(checkpoint("gpt_neox")), "--probe", str(file), *options, *arguments]) == 0
        return [document for _, document in sorted(files_of(tmp_path / "out").items())]

    return sweep


class LossesProbe(Probe):
    """All losses, to compute from."""

    name, needs = "losses", Need.TOKEN_LOSSES

    def start(self, context):
        self.losses = []

    def update_losses(self, losses_N, batch):
        self.losses.append(losses_N)

    def finish(self):
        return Measurement({}, {"all": torch.cat(self.losses)})


def test_a_sweep_measures_the_probe_of_a_file_beside_its_tasks(sweep, checkpoint, corpus_file, tmp_path, capsys):
    [document] = sweep(write_probe(tmp_path), "--tasks", "lmsat_head", "--save", str(tmp_path / "kept.yaml"))
    assert document["results"].keys() == {"lmsat_head", "lmsat_surprise"}
    outcome = measure(checkpoint("gpt_neox"), [LossesProbe()], corpus=str(corpus_file), max_tokens=300, device="cpu")
    expected = (outcome.arrays["losses/all"] > 5).mean()
    assert 0 < expected < 1
    assert document["results"]["lmsat_surprise"]["share,none"] == pytest.approx(expected, rel=1e-9)
    notes = document["config"]["lmsat"]["probes"]["surprise"]
    assert notes["origin"] == "mine.py"
    assert notes["source_sha256"] == source_sha256(plugins().probe("surprise"))
    # The configuration that is kept names the file, and the next sweep finds all done.
    plugins.cache_clear()
    os.environ["LMSAT_PROBES"] = ""
    capsys.readouterr()
    assert main(["sweep", str(tmp_path / "kept.yaml")]) == 0
    assert "0 measured, 1 done before" in capsys.readouterr().out


def test_changed_code_is_measured_again_and_a_comment_is_not(sweep, tmp_path, capsys):
    tasks = "--tasks", "lmsat_head"
    [first] = sweep(write_probe(tmp_path), *tasks)
    commented = SURPRISE.replace("class ", "# Five nats are e^-5.\n\nclass ", 1).replace(
        "(Probe):", '(Probe):\n    """How many."""\n'
    )
    assert commented.count('"""') == 2
    assert sweep(write_probe(tmp_path, commented), *tasks) == [first]
    _, second = sweep(write_probe(tmp_path, SURPRISE.replace("> 5", "> 6")), *tasks)
    assert second["results"].keys() == {"lmsat_surprise"}
    one, other = (document["results"]["lmsat_surprise"]["share,none"] for document in (first, second))
    assert other < one
    capsys.readouterr()
    assert main(["results", str(tmp_path / "out"), "--format", "json"]) == 0
    shown = [row for row in json.loads(capsys.readouterr().out) if row["task"] == "lmsat_surprise"]
    assert [row["value"] for row in shown] == [other], "that of the code before is replaced"


# ``lm_eval`` with the folders that lmsat adds to its own, of which an index takes seconds.
COMMAND = """
import functools, sys, lm_eval.tasks, lmsat_autoload
from lm_eval.__main__ import cli_evaluate

lm_eval.tasks.TaskManager = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
sys.argv += ["--include_path", str(lmsat_autoload.task_folders()[-1])]
cli_evaluate()
"""


def test_lm_eval_finds_the_files_that_the_environment_names(checkpoint, corpus_file, tmp_path):
    script = tmp_path / "lm_eval.py"
    script.write_text(COMMAND)
    running = shared().start(
        *(str(script), "run", "--model", "lmsat", "--model_args", f"pretrained={checkpoint('gpt_neox')}"),
        *("--device", "cpu", "--tasks", "lmsat_surprise", "--output_path", str(tmp_path / "out")),
        *("--metadata", f"corpus={corpus_file}", "max_tokens=300"),
        LMSAT_PROBES=str(write_probe(tmp_path)),
    )
    assert running.wait() == 0, running.output
    [document] = files_of(tmp_path / "out").values()
    assert 0 < document["results"]["lmsat_surprise"]["share,none"] < 1


def test_a_file_that_the_environment_names_and_that_does_not_import_is_named(
    tmp_path, monkeypatch, no_other_files, caplog
):
    monkeypatch.setenv(
        "LMSAT_PROBES", os.pathsep.join([str(write_probe(tmp_path, "1 / 0")), str(tmp_path / "gone.py")])
    )
    with pytest.raises(LmsatError, match=r"no probe is named 'surprise'.*mine.py \(.* does not import \(division by"):
        plugins().probe("surprise")
    assert "gone.py cannot be read" in caplog.text


def test_a_file_that_has_changed_is_read_again(tmp_path, no_other_files):
    [name] = use_probe_files([write_probe(tmp_path)])
    first = plugins().probe(name)
    assert use_probe_files([write_probe(tmp_path)]) == [name]
    assert plugins().probe(name) is first
    assert use_probe_files([write_probe(tmp_path, SURPRISE.replace('"surprise"', '"other"'))]) == ["other"]
    assert "surprise" not in plugins().probes
    assert os.environ["LMSAT_PROBES"].count("mine.py") == 1


def test_probes_of_lmsat_have_versions_and_no_digest():
    assert all(source_sha256(probe) is None for probe in plugins().probes.values())
    assert source_sha256(LossesProbe) is not None

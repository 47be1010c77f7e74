"""Plugins: every hook is documented and tested, a bad one does no harm, the example works once installed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from evaluation import evaluate
from places import ROOT
from tiny_models import WINDOW

from lmsat_plugin import (
    CheckpointEvaluated,
    CheckpointMeasured,
    FigureRegistry,
    LmsatError,
    Measurement,
    Need,
    Probe,
    ReportFigure,
    SweepFinished,
    hookimpl,
    hookspecs,
    measure,
)
from lmsat_plugin.plugins import load, plugins
from lmsat_plugin.text.corpora import CorpusSettings, load_corpus

EXAMPLE = ROOT / "examples" / "lmsat-probe-example"
DOCUMENTATION = (ROOT / "docs" / "plugins.md").read_text("utf-8")
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "lmsat_spec")}
BUILT_IN = {"loss", "anisotropy", "head"}


class RowsProbe(Probe):
    name = "rows"
    needs = Need.WEIGHTS

    def start(self, subject):
        self.rows = subject.vocab_rows

    def finish(self):
        return Measurement({"rows": self.rows})


class ImpostorProbe(RowsProbe):
    name = "loss"


def plugin(*hooks) -> ModuleType:
    module = ModuleType("a_plugin")
    vars(module).update({hook.__name__: hookimpl(hook) for hook in hooks})
    return module


def lmsat_register_probes(registry):
    registry.add(RowsProbe)


def lmsat_register_corpora(registry):
    registry.add("three", lambda settings: ["one", "two", f"of {settings.max_tokens}"])


def test_every_hook_has_its_signature_documented_and_a_test():
    signatures = [f"{name}{inspect.signature(hook)}".replace("'", "") for name, hook in HOOKS.items()]
    assert re.findall(r"^### (lmsat_.*)$", DOCUMENTATION, re.MULTILINE) == signatures
    untested = [name for name in HOOKS if not any(test.startswith(f"test_{name}") for test in globals())]
    assert not untested


def test_every_need_is_documented():
    for need in Need:
        assert f"| `{need.name}` |" in DOCUMENTATION


def test_code_of_the_tutorial_is_the_example():
    shown = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", DOCUMENTATION, re.MULTILINE | re.DOTALL))
    assert "class SurpriseProbe" in shown.pop("mine.py"), "which tests/helpers/probes_in_files.py reads"
    assert len(shown) == 4
    for path, code in shown.items():
        assert code == (EXAMPLE / path).read_text("utf-8"), path


@pytest.mark.parametrize("name", HOOKS)
def test_example_of_each_hook_in_the_reference_is_accepted(name):
    code = re.search(rf"^### {name}.*?```python\n(.*?)```", DOCUMENTATION, re.MULTILINE | re.DOTALL)[1]
    module = ModuleType(name)
    exec(code, vars(module))
    found = load()
    found.register(module, "reference", "docs")
    assert "reference" not in found.failures
    assert [caller.name for caller in found.manager.get_hookcallers(module)] == [name]


def test_lmsat_register_probes_adds_a_probe_and_its_origin():
    found = load()
    found.register(plugin(lmsat_register_probes), "mine", "mine 1.0")
    assert found.probe("rows") is RowsProbe
    assert found.origins["probe:rows"] == "mine 1.0"
    assert found.origins["probe:loss"] == "built in"


def test_lmsat_register_figures_adds_figures_and_a_failing_plugin_costs_no_other(caplog):
    def lmsat_register_figures(registry):
        alt = f"{len(registry.results)} values."
        registry.add(ReportFigure(name="mine", title="Mine", source="", alt=alt, draw=lambda: "drawn"))
        registry.add(ReportFigure(name="broken", title="Broken", source="", alt="", draw=lambda: 1 / 0))

    def raises(registry):
        raise RuntimeError("no figure today")

    raises.__name__ = "lmsat_register_figures"
    found = load()
    found.register(plugin(raises), "bad", "bad 1.0")
    found.register(plugin(lmsat_register_figures), "good", "good 1.0")
    mine, broken = (one for one in found.figures(pd.DataFrame({"value": [1, 2]})) if one.source == "")
    assert (mine.alt, mine.draw()) == ("2 values.", "drawn")
    with pytest.raises(LmsatError, match="plugin 'good' failed to draw broken: division by zero"):
        broken.draw()
    assert "plugin 'bad' failed in lmsat_register_figures: no figure today" in caplog.text


def test_figure_of_the_example(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    import lmsat_probe_example

    table = pd.DataFrame({"metric": "share_last", "model": "m", "step": [1, 10], "value": [0.5, 0.75]})
    registry = FigureRegistry(table)
    lmsat_probe_example.lmsat_register_figures(registry)
    [figure] = registry.figures
    assert figure.alt.endswith("at step 10 of m it is 0.75.")
    [line] = figure.draw().axes[0].lines
    assert line.get_ydata().tolist() == [0.5, 0.75]


def test_lmsat_register_corpora_adds_a_corpus_that_sees_the_settings():
    found = load()
    found.register(plugin(lmsat_register_corpora), "mine", "mine 1.0")
    corpus = load_corpus(CorpusSettings(corpus="three", max_tokens=7), found.corpora)
    assert corpus.documents == ("one", "two", "of 7")
    assert found.origins["corpus:three"] == "mine 1.0"


def test_lmsat_checkpoint_measured_gets_what_lm_eval_reports(checkpoint, request):
    events = []

    def lmsat_checkpoint_measured(event):
        events.append(event)

    listener = plugin(lmsat_checkpoint_measured)
    plugins().manager.register(listener)
    request.addfinalizer(lambda: plugins().manager.unregister(listener))
    folder = str(checkpoint("gpt_neox"))
    results = evaluate("lmsat", ["lmsat_head"], model_args={"pretrained": folder})
    [event] = events
    assert (event.model, event.revision, list(event.measurements)) == (folder, "main", ["head"])
    reported = results["results"]["lmsat_head"]["stable_rank,none"]
    assert event.measurements["head"].metrics["stable_rank"] == reported
    assert event.provenance == results["config"]["lmsat"]


def raises(registry):
    registry.add(RowsProbe)
    raise RuntimeError("out of order")


def takes_a_taken_name(registry):
    registry.add(RowsProbe)
    registry.add(ImpostorProbe)


def lmsat_register_prober(registry):
    raise AssertionError("nobody calls this")


raises.__name__ = takes_a_taken_name.__name__ = "lmsat_register_probes"


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        ((lmsat_register_corpora, raises), "out of order"),
        ((lmsat_register_corpora, takes_a_taken_name), "a probe named 'loss' is registered already"),
        ((lmsat_register_corpora, lmsat_register_probes, lmsat_register_prober), "lmsat_register_prober"),
    ],
    ids=["raises", "duplicate name", "misspelt hook"],
)
def test_bad_plugin_is_named_and_skipped_as_a_whole(hooks, reason):
    found = load()
    before = dict(found.probes), dict(found.corpora), dict(found.origins)
    module = plugin(*hooks)
    found.register(module, "bad", "bad 1.0")
    assert reason in found.failures["bad"]
    assert (found.probes, found.corpora, found.origins) == before
    assert not found.manager.is_registered(module)
    with pytest.raises(Exception, match=r"no probe is named 'rows'.*failed to load: .*bad"):
        found.probe("rows")
    found.register(plugin(lmsat_register_probes, lmsat_register_corpora), "good", "good 1.0")
    assert "good" not in found.failures
    assert found.probe("rows") is RowsProbe


LAZY = """
import sys
import pandas as pd
from lmsat_plugin import hookimpl
from lmsat_plugin.hookspecs import SweepFinished
from lmsat_plugin.plugins import load

asked = []

class Plugin:
    @hookimpl
    def lmsat_register_probes(self, registry):
        asked.append("probes")
        raise RuntimeError("out of order")

    @hookimpl
    def lmsat_register_corpora(self, registry):
        asked.append("corpora")

    @hookimpl
    def lmsat_register_figures(self, registry):
        asked.append("figures")

found = load()
found.register(Plugin(), "mine", "mine 1.0")
found.figures(pd.DataFrame())
found.tell(SweepFinished(output="out", trackers={}))
found.check_trackers({})
assert asked == ["figures"], asked
assert not {"torch", "datasets", "transformers"} & sys.modules.keys()
assert found.failures == {"mine": "out of order"}, "asking for what failed asks the plugins"
assert asked == ["figures", "probes"]
assert "loss" in found.probes and "sample" in found.corpora
found.figures(pd.DataFrame())
assert asked == ["figures", "probes"], "a plugin that failed is left out altogether"
"""


def test_probes_and_corpora_are_registered_when_they_are_asked_for():
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("plugin 'mine' is not used: out of order") == 1


def install_broken(folder: Path) -> Path:
    """Make a folder with an installed distribution whose entry point does not import."""
    information = folder / "broken-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[lmsat]\nbroken = broken_lmsat_plugin\n")
    (folder / "broken_lmsat_plugin.py").write_text("import a_module_that_nobody_has\n")
    return folder


def test_entry_point_that_does_not_import_is_named_and_skipped(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(install_broken(tmp_path))
    found = load()
    assert found.failures["broken"].startswith("broken_lmsat_plugin does not import")
    assert "a_module_that_nobody_has" in found.failures["broken"]
    assert found.probes.keys() >= BUILT_IN
    monkeypatch.setenv("LMSAT_PLUGINS", "0")
    assert load().failures == {}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a folder with the example installed in it."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(EXAMPLE)]
    subprocess.run(command, check=True)
    return folder


def principal_shares(folder: Path, documents: list[str], centred: bool = True) -> list[float]:
    """Return the share of each layer by a singular value decomposition of all states of a float64 model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    parts = []
    for text in documents:
        tokens = [tokenizer.bos_token_id, *tokenizer.encode(text)]
        assert len(tokens) - 1 <= WINDOW, "a document of this test is one window"
        with torch.no_grad():
            states = model(torch.tensor([tokens[:-1]]), output_hidden_states=True).hidden_states
        parts.append([state[0].numpy() for state in states])
    shares = []
    for matrix in map(np.concatenate, zip(*parts, strict=True)):
        squares = np.linalg.svd(matrix - centred * matrix.mean(0), compute_uv=False) ** 2
        shares.append(squares[0] / squares.sum())
    return shares


def test_example_runs_in_plain_lm_eval_once_installed(installed, checkpoint, tmp_path):
    folder, log = checkpoint("gpt_neox"), tmp_path / "log.jsonl"
    path = os.pathsep.join([str(installed), str(install_broken(tmp_path))])
    command = f"""-m lm_eval run --model lmsat --model_args pretrained={folder}
        --tasks lmsat_principal_component,lmsat_loss --metadata corpus=zen --output_path {tmp_path / "out"}"""
    environment = {**os.environ, "PYTHONPATH": path, "LMSAT_EXAMPLE_LOG": str(log)}
    run = subprocess.run([sys.executable, *command.split()], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

    [results] = [json.loads(file.read_text()) for file in (tmp_path / "out").rglob("results_*.json")]
    zen = subprocess.run([sys.executable, "-c", "import this"], capture_output=True, text=True).stdout
    shares = principal_shares(folder, [line for line in zen.splitlines() if line])
    measured = results["results"]["lmsat_principal_component"]
    expected = {"share_last": shares[-1], "share_mean": np.mean(shares), "share_max": max(shares)}
    assert {key: measured[f"{key},none"] for key in expected} == pytest.approx(expected, rel=1e-5)
    origin = results["config"]["lmsat"]["probes"]["principal_component"]["origin"]
    assert origin == "lmsat-probe-example 0.1.0"

    [line] = map(json.loads, log.read_text().splitlines())
    assert line["model"] == str(folder)
    assert line["principal_component"]["share_last"] == measured["share_last,none"]
    assert line["loss"]["loss"] == results["results"]["lmsat_loss"]["loss,none"]


@pytest.mark.parametrize("centred", [True, False])
def test_example_in_many_batches(installed, checkpoint, monkeypatch, centred):
    monkeypatch.syspath_prepend(installed)
    from lmsat_probe_example.corpus import zen
    from lmsat_probe_example.probe import PrincipalComponentProbe, PrincipalComponentSettings

    folder, documents = checkpoint("opt_narrow"), zen(CorpusSettings())
    probe = PrincipalComponentProbe(PrincipalComponentSettings(centred=centred))
    outcome = measure(folder, [probe], corpus=documents, batch_size=1, device="cpu")
    shares = principal_shares(folder, documents, centred)
    np.testing.assert_allclose(outcome.arrays["principal_component/by_layer"], shares, rtol=1e-5)


def evaluated(output: Path) -> CheckpointEvaluated:
    metrics = {"lmsat_loss/loss": 2.5, "gsm8k/exact_match,strict-match": 0.25}
    return CheckpointEvaluated(
        model="model",
        revision="step8",
        step=8,
        tokens=None,
        metrics=metrics,
        path=output / "results.json",
        output=output,
        trackers={},
    )


EVENTS = {
    "lmsat_checkpoint_measured": CheckpointMeasured(model="model", revision="main", measurements={}, provenance={}),
    "lmsat_checkpoint_evaluated": evaluated(Path("output")),
    "lmsat_sweep_finished": SweepFinished(Path("output"), {}),
}


@pytest.mark.parametrize("hook", EVENTS)
def test_plugin_that_fails_to_listen_is_named_and_the_others_are_told(hook, caplog):
    told = []

    def fails(event):
        raise OSError("the disk is full")

    def listens(event):
        told.append(event)

    fails.__name__ = listens.__name__ = hook
    found = load()
    for name, function in (("first", listens), ("bad", fails), ("last", listens)):
        found.register(plugin(function), name, "docs")
    found.tell(EVENTS[hook])
    assert told == [EVENTS[hook]] * 2
    [record] = caplog.records
    subject = "output" if hook == "lmsat_sweep_finished" else "model"
    assert record.getMessage() == f"plugin 'bad' failed in {hook} of {subject}: the disk is full"


def test_lmsat_checkpoint_evaluated_and_lmsat_sweep_finished_get_their_own_event_only(tmp_path):
    told = []

    def lmsat_checkpoint_evaluated(event):
        told.append(("evaluated", event))

    def lmsat_sweep_finished(event):
        told.append(("finished", event))

    found = load()
    found.register(plugin(lmsat_checkpoint_evaluated, lmsat_sweep_finished), "mine", "mine 1.0")
    one, end = evaluated(tmp_path), SweepFinished(tmp_path, {})
    for event in (EVENTS["lmsat_checkpoint_measured"], one, end):
        found.tell(event)
    assert told == [("evaluated", one), ("finished", end)]


def test_lmsat_sweep_finished_is_told_to_the_built_in_trackers(tmp_path):
    pytest.importorskip("tensorboard")
    found, trackers = load(), {"tensorboard": {}}
    found.tell(dataclasses.replace(evaluated(tmp_path), trackers=trackers))
    tracker = found.manager.get_plugin("lmsat.tensorboard")
    assert list(tracker.runs) == [(tmp_path, "model")]
    found.tell(SweepFinished(tmp_path, trackers))
    assert tracker.runs == {}


def test_plugin_named_by_two_entry_points_is_used_once():
    found, module = load(), plugin(lmsat_register_probes)
    found.register(module, "one", "mine 1.0")
    found.register(module, "two", "mine 1.0")
    assert found.manager.is_registered(module)
    assert "'one'" in found.failures["two"]


def test_no_tasks_without_plugins(installed, monkeypatch):
    from lmsat_autoload import task_folders

    monkeypatch.syspath_prepend(installed)
    assert installed / "lmsat_probe_example" / "tasks" in task_folders()
    monkeypatch.setenv("LMSAT_PLUGINS", "0")
    assert len(task_folders()) == 1

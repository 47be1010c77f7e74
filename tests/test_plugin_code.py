"""A plugin's code does not end the process, whatever it raises, and is named where it hangs; Ctrl-C stays Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from lmsat_plugin import Measurement, Need, Probe, hookimpl, measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.hookspecs import CorpusRegistry, ProbeRegistry, SweepFinished
from lmsat_plugin.plugin_code import contained, named_if_slow
from lmsat_plugin.plugins import load
from lmsat_plugin.text.corpora import CorpusSettings, load_corpus

if TYPE_CHECKING:
    from pathlib import Path


class OwnError(BaseException):
    """What no `except Exception` catches."""


ENDING = [SystemExit(0), SystemExit("no licence"), KeyboardInterrupt(), GeneratorExit(), OwnError("on purpose")]


def module(hook: str, function) -> ModuleType:
    made = ModuleType("a_plugin")
    vars(made)[hook] = hookimpl(function)
    function.__name__ = hook
    return made


def raising(error: BaseException):
    def hook(registry=None, event=None):
        raise error

    return hook


@pytest.mark.parametrize("error", ENDING, ids=repr)
def test_what_ends_a_process_is_an_error_of_the_plugin(error):
    with pytest.raises(LmsatError, match=f"^it raised {type(error).__name__}"), contained():
        raise error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handled_as_before(number):
    def end(number, frame):
        raise KeyboardInterrupt(number)

    before = signal.signal(number, end)
    try:
        with pytest.raises(KeyboardInterrupt), contained():
            signal.raise_signal(number)
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_in_a_thread_no_signal_is_touched():
    before, caught = signal.getsignal(signal.SIGINT), []

    def run():
        try:
            with contained():
                raise KeyboardInterrupt
        except LmsatError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("error", ENDING, ids=repr)
def test_a_plugin_that_raises_it_in_a_hook_is_named_and_skipped(error, caplog):
    found = load()
    found.register(module("lmsat_register_probes", raising(error)), "bad", "bad 1.0")
    assert found.failures["bad"].startswith(f"it raised {type(error).__name__}")
    assert "loss" in found.probes
    found.register(module("lmsat_sweep_finished", raising(error)), "deaf", "deaf 1.0")
    found.tell(SweepFinished("out", {}))
    assert f"plugin 'deaf' failed in lmsat_sweep_finished of out: it raised {type(error).__name__}" in caplog.text


def test_what_is_no_probe_or_corpus_is_refused():
    class Unnamed:
        name, needs, settings_type = 3, Need.WEIGHTS, dict

    with pytest.raises(ValueError, match="is not a probe: it has no name"):
        ProbeRegistry().add(Unnamed)
    Unnamed.name = "unnamed"
    with pytest.raises(ValueError, match="is not a probe: it has no settings_type"):
        ProbeRegistry().add(Unnamed)
    with pytest.raises(ValueError, match="is not a function"):
        CorpusRegistry().add("mine", ["a document"])


def test_a_corpus_of_a_plugin_that_fails_is_a_sentence():
    def ends(settings):
        yield "one"
        raise SystemExit(1)

    sources = {"ends": ends, "breaks": lambda settings: 1 / 0, "numbers": lambda settings: ["one", 2]}
    for name, reason in [
        ("ends", "the corpus 'ends' raised SystemExit: 1"),
        ("breaks", r"the corpus 'breaks' cannot be loaded \(ZeroDivisionError: division by zero\)"),
        ("numbers", "the corpus 'numbers' holds a int"),
    ]:
        with pytest.raises(LmsatError, match=reason):
            load_corpus(CorpusSettings(corpus=name), sources)


@pytest.mark.parametrize("method", ["prepare", "start", "update_losses", "finish"])
def test_a_probe_that_ends_the_process_is_named(checkpoint, documents, method):
    class EndingProbe(Probe):
        name = "ending"
        needs = Need.TOKEN_LOSSES

        def start(self, context):
            pass

        def finish(self):
            return Measurement({"one": 1})

    def end(*arguments):
        sys.exit(3)

    setattr(EndingProbe, method, end)
    with pytest.raises(LmsatError, match=r"^the probe 'ending' raised SystemExit: 3"):
        measure(checkpoint("gpt_neox"), [EndingProbe()], corpus=documents[:2], device="cpu")


def test_a_plugin_that_takes_long_is_named_once_and_a_fast_one_is_not(monkeypatch, capsys):
    monkeypatch.setattr("lmsat_plugin.plugin_code._PATIENCE_SECONDS", 0.05)
    with named_if_slow("fast", "lmsat_register_probes"):
        pass
    found = load()
    found.register(module("lmsat_register_probes", lambda registry: time.sleep(0.3)), "slow", "slow 1.0")
    assert "loss" in found.probes
    lines = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert lines == [
        "lmsat: waiting for the plugin 'slow' (lmsat_register_probes) for more than 0.05 seconds: "
        "LMSAT_PLUGINS=0 leaves plugins out"
    ]


def install(folder: Path, name: str, code: str) -> None:
    """Install a distribution whose entry point is a module with this code."""
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[lmsat]\n{name} = {name}_module\n")
    (folder / f"{name}_module.py").write_text(code)


def test_installed_plugins_that_end_the_process_or_hang(tmp_path):
    """In processes of their own: the command goes on without those that raise, and Ctrl-C ends one that hangs."""
    install(tmp_path / "bad", "leaves", "raise SystemExit(0)\n")
    install(tmp_path / "bad", "pretends", "raise KeyboardInterrupt\n")
    path = os.environ.get("PYTHONPATH", "")
    command = "from lmsat_plugin.plugins import plugins; print(sorted(plugins()._failures)); import lmsat_autoload"
    done = subprocess.run(
        [sys.executable, "-c", f"{command}; print(len(lmsat_autoload.task_folders()))"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'bad'}{os.pathsep}{path}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "['leaves', 'pretends']\n1\n"), done.stderr
    assert "plugin 'pretends' is not used: pretends_module does not import (it raised KeyboardInterrupt)" in done.stderr

    install(tmp_path / "slow", "hangs", "import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    # A shell starts what runs in its background with SIGINT ignored.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from lmsat_plugin.cli.main import main; sys.exit(main(['probes']))"
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'slow'}{os.pathsep}{path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout.readline() == "here\n"
    running.send_signal(signal.SIGINT)
    out, error = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert error == "lmsat: interrupted\n"

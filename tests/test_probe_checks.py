"""A probe is tried on a tiny model: right ones pass, and of each kind of wrong one it is said what is wrong."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from forked_calls import ForkedCall
from probes_in_files import SURPRISE, write_probe
from probes_in_files import no_other_files as no_other_files

from lmsat_plugin import LmsatError, Measurement, Need, Probe, Sums, check_probe, measure, probe_checks, tiny_model
from lmsat_plugin.cli.main import main
from lmsat_plugin.plugins import plugins
from lmsat_plugin.sweeps.job_errors import reason_of

if TYPE_CHECKING:
    pass


@pytest.fixture
def forks(monkeypatch):
    """Let the two processes be forks of this one."""
    start = lambda told: ForkedCall(functools.partial(probe_checks.measure_share, told))  # noqa: E731
    monkeypatch.setattr(probe_checks, "_start", start)


class MeanProbe(Probe):
    """The mean loss, which each of the wrong ones below gets wrong in a way of its own."""

    name, needs = "mean", Need.TOKEN_LOSSES

    def start(self, context):
        self.sums = Sums(context, loss=(), tokens=())

    def update_losses(self, losses_N, batch):
        self.sums.update(loss=losses_N.sum(), tokens=len(losses_N))

    def finish(self):
        sums = self.sums.totals()
        return Measurement({"loss": float(sums["loss"] / sums["tokens"])})


class MeanOfMeansProbe(MeanProbe):
    def update_losses(self, losses_N, batch):
        self.sums.update(loss=losses_N.mean(), tokens=1)


class NeverEmptiedProbe(MeanProbe):
    def start(self, context):
        if not hasattr(self, "sums"):
            super().start(context)


class OwnShareProbe(MeanProbe):
    def start(self, context):
        self.losses = []

    def update_losses(self, losses_N, batch):
        self.losses += losses_N.tolist()

    def finish(self):
        return Measurement({"loss": sum(self.losses) / len(self.losses)})


class RandomProbe(MeanProbe):
    def finish(self):
        return Measurement({"loss": float(torch.rand(()))})


class SecondFailsProbe(MeanProbe):
    def finish(self):
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise ValueError("no such thing here")
        return super().finish()


class WaitsProbe(MeanProbe):
    def finish(self):
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            self.sums.totals()
        return super().finish()


class OtherNamesProbe(MeanProbe):
    def finish(self):
        return Measurement({f"loss_{int(self.sums.tokens)}": 1.0})


class RaisesProbe(MeanProbe):
    def finish(self):
        raise KeyError("total")


class NotFiniteProbe(MeanProbe):
    def finish(self):
        return Measurement({"loss": float("nan")})


class DoublesLossesProbe(MeanProbe):
    def start(self, context):
        super().start(context)
        context.model.get_output_embeddings().weight.data *= 2


@pytest.mark.parametrize("name", ["anisotropy", "head"])
def test_probes_of_lmsat_pass(name, forks):
    metrics = check_probe(plugins().probe(name)())
    model, tokenizer = tiny_model()
    options = {"corpus": probe_checks._documents(), "tokenizer": tokenizer, "max_tokens": probe_checks._TOKENS}
    assert measure(model, [name], **options).measurements[name].metrics == pytest.approx(metrics)


def test_a_mean_of_tokens_passes(forks):
    model, tokenizer = tiny_model()
    options = {"corpus": probe_checks._documents(), "tokenizer": tokenizer, "max_tokens": probe_checks._TOKENS}
    expected = measure(model, ["loss"], **options).metrics["lmsat_loss/loss"]
    assert check_probe(MeanProbe())["loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (MeanOfMeansProbe, r"gives another loss where the text comes in many batches: [\d.]+ and [\d.]+; keep sums"),
        (NeverEmptiedProbe, r"gives another loss where a pass runs out of memory and begins again.*make all.*in start"),
        (OwnShareProbe, r"gives another loss where two processes share the text.*keep sums"),
        (RandomProbe, r"gives another loss where it is measured again"),
        (SecondFailsProbe, r"two processes share the text, and .*no such thing here"),
        (WaitsProbe, r"waits for ever where two processes share the text: let each call Sums.totals"),
        (OtherNamesProbe, r"returns other metrics where two processes share the text \(loss_\d+, loss_\d+\)"),
        (RaisesProbe, r"the probe 'mean' raised KeyError \('total'\): correct it; LMSAT_DEBUG=1 shows where"),
        (NotFiniteProbe, r"the probe 'mean' returns loss = nan: return a number"),
        (DoublesLossesProbe, r"the probe 'mean' changed the model"),
    ],
)
def test_what_is_wrong_is_said(kind, message, forks, monkeypatch):
    monkeypatch.setattr(probe_checks, "_SECONDS", 5.0)
    with pytest.raises(LmsatError, match=message) as caught:
        check_probe(kind())
    assert "\n" not in str(caught.value)


def test_the_command_checks_a_file_with_processes_of_its_own(tmp_path, capsys, no_other_files):
    assert main(["probes", "check", str(write_probe(tmp_path))]) == 0
    assert "The same in one batch and in many, on one process and on two" in capsys.readouterr().out


def test_the_command_ends_with_1_for_sums_that_do_not_add_up(tmp_path, capsys, no_other_files):
    wrong = SURPRISE.replace("(losses_N > 5).sum()", "1")
    assert main(["probes", "check", str(write_probe(tmp_path, wrong))]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "the probe 'surprise' gives another share where the text comes in many batches" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import a_module_that_nobody_has", "mine.py does not import (No module named 'a_module_that_nobody_has')"),
        ("def f(:", "mine.py does not import (invalid syntax"),
        ("raise SystemExit(3)", "mine.py does not import (it raised SystemExit: 3)"),
        ("from lmsat_plugin import Probe", "mine.py defines no probe: give it a class that derives from"),
        (SURPRISE.replace('"surprise"', '"loss"'), "cannot be used: a probe named 'loss' is registered already"),
        (SURPRISE.replace('name = "surprise"', "pass"), "it has no name"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence(text, message, checkpoint, tmp_path, capsys, no_other_files):
    folder = str(checkpoint("gpt_neox"))
    capsys.readouterr()
    for command in (["probes", "check"], ["sweep", folder, "--dry-run", "--probe"]):
        assert main([*command, str(write_probe(tmp_path, text))]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere.py"], "nowhere.py is no file with a probe: there is no such file"),
        (["check", "nobody"], "no probe is named 'nobody' (known: loss"),
        (["check"], "lmsat probes check needs a name"),
        (["new", "loss"], "a probe named 'loss' is there already (built in)"),
        (["new", "taken"], "taken is there already: give the probe another name"),
        (["new", "2fast"], "'2fast' cannot be a probe's name"),
        (["new", "../up"], "'../up' cannot be a probe's name"),
        (["new", "class"], "'class' cannot be a probe's name"),
        (["check", "taken"], "taken/pyproject.toml cannot be read"),
    ],
)
def test_bad_names_are_a_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    assert main(["probes", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_sums_take_numbers_and_tensors_of_their_own_shape():
    sums = Sums(SimpleNamespace(device=torch.device("cpu"), synchronise=False), total=(), by_layer=(2,))
    sums.update(total=3, by_layer=torch.tensor([1, 2]))
    sums.update(total=0.1)
    sums.update(total=np.float32(0.5), by_layer=[0.25, 0])
    assert {name: value.tolist() for name, value in sums.totals().items()} == {
        "total": pytest.approx(3.6, rel=1e-15),
        "by_layer": [1.25, 2.0],
    }
    assert sums.totals()["total"].dtype == torch.float64
    for wrong in (1.0, torch.ones(2, 2), torch.ones(1)):
        with pytest.raises(LmsatError, match=r"the sum 'by_layer' has the shape .*, and the sum has \(2,\)"):
            sums.update(by_layer=wrong)
    with pytest.raises(LmsatError, match=r"there is no sum 'totla' \(made: total, by_layer\)"):
        sums.update(totla=1)


def test_what_a_sweep_records_of_an_error_names_the_probe():
    model, tokenizer = tiny_model()
    with pytest.raises(KeyError) as caught:
        measure(model, [RaisesProbe()], corpus=["some text"], tokenizer=tokenizer)
    assert reason_of(caught.value) == "KeyError ('total') in the probe 'mean': LMSAT_DEBUG=1 shows where"

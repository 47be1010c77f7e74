"""``lmsat probes`` lists what is installed."""

from __future__ import annotations

import json

from tiny_models import make_model

from lmsat_plugin import Measurement, Need, Probe, measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.plugins import plugins


def test_probes_lists_what_is_found(capsys):
    assert main(["probes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"loss", "anisotropy", "head"} <= {probe["name"] for probe in found["probes"]}
    assert {"sample", "pile"} <= {corpus["name"] for corpus in found["corpora"]}
    assert all(probe["origin"] for probe in found["probes"])


class SlowProbe(Probe):
    """A third party's probe that costs much."""

    name, needs, is_expensive = "slow_one", Need.WEIGHTS, True
    cost = "ten forward passes"

    def start(self, context):
        pass

    def finish(self):
        return Measurement({"size": 1.0})


def test_expensive_probes_are_listed_apart_with_their_cost(capsys, monkeypatch, tokenizer):
    monkeypatch.setitem(plugins().probes, "slow_one", SlowProbe)
    monkeypatch.setitem(plugins().origins, "probe:slow_one", "elsewhere")
    assert main(["probes"]) == 0
    cheap, _, rest = capsys.readouterr().out.partition("Expensive probes, which lmsat_* leaves out")
    assert "lmsat-slow-one" in rest
    assert "ten forward passes" in rest
    assert "lmsat-" not in cheap
    assert main(["probes", "--json"]) == 0
    found = {probe["name"]: probe for probe in json.loads(capsys.readouterr().out)["probes"]}
    assert (found["slow_one"]["task"], found["slow_one"]["expensive"]) == ("lmsat-slow-one", True)
    assert found["loss"]["cost"] == "a forward pass"
    assert all(probe["cost"] for probe in found.values())
    assert measure(make_model("llama"), ["slow_one"], tokenizer=tokenizer).metrics == {"lmsat-slow-one/size": 1.0}

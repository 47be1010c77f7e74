"""``lmsat probes`` lists what is installed."""

from __future__ import annotations

import json

from lmsat_plugin.cli.main import main


def test_probes_lists_what_is_found(capsys):
    assert main(["probes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"loss", "anisotropy", "head"} <= {probe["name"] for probe in found["probes"]}
    assert {"sample", "pile"} <= {corpus["name"] for corpus in found["corpora"]}
    assert all(probe["origin"] for probe in found["probes"])

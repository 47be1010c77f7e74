"""``lmsat allocate``: what it prints and refuses."""

from __future__ import annotations

import json

import pytest

from lmsat_plugin.analysis.scaling_laws import kaplan
from lmsat_plugin.cli.main import main


def test_the_command(capsys):
    assert main(["allocate", "--compute", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answers"][0]["n_params"] == pytest.approx(1.3e9)
    assert found["data_needed"] == pytest.approx(kaplan.data_needed(1.3e9))
    assert main(["allocate", "--params", "1e9"]) == 0
    assert "Besiroglu" in capsys.readouterr().out
    for given in ("-1", "0", "nan", "1e300"):
        assert main(["allocate", "--flops", given]) == 2
        assert "is out of range" in capsys.readouterr().err

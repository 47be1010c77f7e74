"""``lmsat shape``: what it prints and draws."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin.cli.main import main


def test_the_shape_command(tmp_path, capsys):
    rng = np.random.default_rng(12)
    layers = rng.integers(2, 40, 24)
    width = 64 * rng.integers(2, 40, 24)
    n = 12.0 * layers * width**2
    loss = (8.8e13 / n) ** 0.076 * np.exp(0.004 * np.log(width / layers / 60) ** 2)
    columns = {"n_layers": layers, "hidden_size": width, "n_params_non_embedding": n, "loss": loss}
    pd.DataFrame({"model": [f"m{i}" for i in range(24)], **columns}).to_csv(tmp_path / "t.csv", index=False)
    assert main(["shape", str(tmp_path / "t.csv"), "--json", "--figure", str(tmp_path / "f.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["alpha_n"]["value"] == pytest.approx(0.076)
    assert found["curvature"]["value"] == pytest.approx(0.004)
    assert found["best_aspect"] == pytest.approx(60, rel=0.01)
    assert main(["shape", str(tmp_path / "t.csv")]) == 0
    assert "least at width/depth = " in capsys.readouterr().out

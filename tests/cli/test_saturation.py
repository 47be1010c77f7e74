"""``lmsat saturation``: what it prints and draws, and its refusals."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from training_runs import falling, table_of

from lmsat_plugin.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def write(path: Path, table: pd.DataFrame) -> str:
    table.to_csv(path, index=False)
    return str(path)


def test_the_command(tmp_path, capsys):
    values = falling(np.random.default_rng(15))
    values[18:] += 0.08
    data = write(tmp_path / "runs.csv", table_of(values))
    assert main(["saturation", data, "--json", "--figure", str(tmp_path / "f.png")]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["verdict"] == "saturates"
    assert one["onset_low"] <= one["onset_step"] <= one["onset_high"]
    assert {"model", "reason", "best_step", "best", "final_step", "final", "p_value"} <= one.keys()
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert main(["saturation", data]) == 0
    assert "m: saturates: its last 5 checkpoints" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (table_of([3.0], [1]).drop(columns="loss"), "no column 'loss'"),
        (table_of([3.0], [1]).drop(columns="model"), "no column 'model'"),
        (table_of([np.nan] * 28), "no row has a finite number"),
        (table_of([3.0, 3.1], [5, 5]), "two values for step 5"),
        (table_of(np.full(28, 40.0)), "not perplexities"),
        (table_of(np.log2(np.full(28, 20.0)), perplexity=20.0), "in bits|that is bits"),
        (table_of(np.full(28, -3.0)), "above 0"),
        (table_of(np.full(28, 3.0), np.full(28, np.nan)), "states its training step"),
    ],
)
def test_bad_tables_get_a_sentence(tmp_path, capsys, table, said):
    assert main(["saturation", write(tmp_path / "t.csv", table)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("lmsat: error:")
    assert re.search(said, error)


def test_other_bad_input(tmp_path, capsys):
    data = write(tmp_path / "t.csv", table_of(falling(np.random.default_rng(16))))
    for arguments, said in (
        (["--task", "piqa"], "holds only losses"),
        (["--min-step", "10000000"], "set --min-step below 140000"),
        (["--figure", "x.txt"], "not a figure's file name"),
    ):
        assert main(["saturation", data, *arguments]) == 2
        assert said in capsys.readouterr().err
    assert main(["saturation", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read as CSV" in capsys.readouterr().err

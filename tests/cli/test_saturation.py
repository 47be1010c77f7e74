"""``lmsat saturation``: what it prints and draws, and its refusals."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from result_trees import write_result
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
    assert "m: saturates: its last 6 checkpoints" in capsys.readouterr().out


def test_steps_of_one_measure_share_their_subject(tmp_path, capsys):
    steps = 2 ** np.arange(10)
    runs = {
        ("lmsat_loss", "loss"): 5 - 0.2 * np.arange(10),
        ("lmsat_head", "singular_entropy"): np.array([5.0, 4, 3, 1, 2, 2, 2, 2, 9, 9]),
        ("lmsat_anisotropy", "anisotropy_last"): np.repeat([0.1, 0.9], 5),
    }
    for (task, metric), values in runs.items():
        for step, value in zip(steps, values, strict=True):
            file = tmp_path / f"model_step{step}" / f"results_{task}.json"
            file.parent.mkdir(exist_ok=True)
            config = {"model_args": f"pretrained=org/model,revision=step{step}"}
            file.write_text(json.dumps({"config": config, "results": {task: {f"{metric},none": value}}}))
    assert main(["saturation", str(tmp_path)]) == 0
    assert (
        "Meanwhile the last layer's anisotropy rises most steeply up to step 32 and stays above 0.5 from step 32 on, "
        "and the head's singular entropy is least at step 8 and rises most steeply up to step 256."
    ) in capsys.readouterr().out


def test_events_stand_on_one_time_line_beside_the_onset(tmp_path, capsys):
    rng, steps = np.random.default_rng(0), range(500, 14_500, 500)
    losses, anisotropy = falling(rng), 0.2 + 0.005 * rng.standard_normal(28)
    losses[20:] += 0.15
    anisotropy[10:] += 0.4
    for step, loss, cosine in zip(steps, losses, anisotropy, strict=True):
        tasks = {"lmsat_loss": {"loss": loss}, "lmsat_anisotropy": {"anisotropy_last": cosine}}
        write_result(tmp_path, "m", step, tasks, 10**7)
    assert main(["saturation", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    line = r"anisotropy_last +jumps up +5,500 +5,000 to 5,500 .*\n +lmsat_loss +loss +onset +10,500 "
    assert re.search(line, said)
    assert re.search(r"anisotropy_last +jumps up +1 +0 +0 +1 +0 of 0", said)
    assert "corrected for the 1 metrics of a run" not in said
    assert main(["saturation", str(tmp_path), "--json", "--events", str(tmp_path / "e.png")]) == 0
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")
    (verdict,) = json.loads(capsys.readouterr().out)
    (event,) = verdict["events"]
    assert (event["kind"], event["at"], event["beside_onset"]) == ("jumps up", 5500, "before")
    assert event["over_runs"] | {"before": 1, "with_onset": 1, "after": 0} == event["over_runs"]
    assert verdict["events_tested"] == {"metrics": 1, "tests": 3}
    for form in ("csv", "md", "latex"):
        assert main(["saturation", str(tmp_path), "--format", form]) == 0
        assert "jumps up" in capsys.readouterr().out


def test_a_table_of_losses_has_no_events(tmp_path, capsys):
    data = write(tmp_path / "runs.csv", table_of(falling(np.random.default_rng(15))))
    assert main(["saturation", data, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["events"] is one["events_tested"] is None
    assert main(["saturation", data, "--events", str(tmp_path / "e.png")]) == 2
    assert "there is no event to draw" in capsys.readouterr().err
    assert main(["saturation", data, "--events", "e.gif"]) == 2
    assert "e.gif is not a figure's file name" in capsys.readouterr().err


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

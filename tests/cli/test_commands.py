"""The command: its lists, its refusals, and the demonstration on a small scale."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import subprocess
import sys

import pytest

from lmsat_plugin import demo
from lmsat_plugin.cli.main import main
from lmsat_plugin.cli.tables import print_table


def test_probes_lists_what_is_found(capsys):
    assert main(["probes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"loss", "anisotropy", "head"} <= {probe["name"] for probe in found["probes"]}
    assert {"sample", "pile"} <= {corpus["name"] for corpus in found["corpora"]}
    assert all(probe["origin"] for probe in found["probes"])


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["probes", "--jsno"])
    assert exit_.value.code == 2
    assert "--jsno" in capsys.readouterr().err


def test_demo_refuses_a_folder_that_is_there(tmp_path, capsys):
    (tmp_path / "something").touch()
    assert main(["demo", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmsat: error:")
    assert str(tmp_path) in error
    assert error.count("\n") == 1


def test_demo_trains_and_measures(tmp_path, monkeypatch, capsys):
    small = functools.partial(demo.natural_language, widths=(16,), steps=(0, 30))
    monkeypatch.setattr(demo, "natural_language", small)
    assert main(["demo", "--output", str(tmp_path / "out")]) == 0
    losses = []
    for step in (0, 30):
        [file] = (tmp_path / "out" / "results" / "neox-w16" / f"step{step}").glob("results_*.json")
        results = json.loads(file.read_text())
        losses.append(results["results"]["lmsat_loss"]["loss,none"])
        assert (tmp_path / "out" / "checkpoints" / "neox-w16" / f"step{step}" / "tokenizer.json").exists()
        assert results["config"]["lmsat"]["corpus"]["tokens"] == 50_000
    assert losses[1] < losses[0]
    assert f"{losses[1]:.4g}" in capsys.readouterr().out


def test_long_demo_prints_what_is_known_beside_what_is_measured(tmp_path, monkeypatch, capsys):
    small = functools.partial(demo.known_answer, widths=(4, 8), steps=(0, 300))
    monkeypatch.setattr(demo, "known_answer", small)
    assert main(["demo", "--long", "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.split("What is known")[1].splitlines() if "-w" in line][:3]
    assert [row[0] for row in rows] == ["fresh-w4", "fresh-w8", "repeated-w8"]
    for _, width, final, best, least, rate in rows:
        assert math.log(256) > float(final) >= float(best) > float(least) > float(rate), width
    assert float(rows[0][4]) > float(rows[1][4]) == float(rows[2][4])
    assert "learns 65,024 tokens by heart" in " ".join(printed.split())
    assert (tmp_path / "out" / "results" / "report" / "index.html").exists()


def test_eval_works_without_the_start_up_hook(checkpoint, corpus_file, tmp_path):
    arguments = ["eval", "--model", "lmsat", "--model_args", f"pretrained={checkpoint('llama')}"]
    arguments += ["--tasks", "lmsat_head", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "lmsat_plugin.cli", *arguments],
        env={**os.environ, "LMSAT_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [file] = (tmp_path / "out").rglob("results_*.json")
    assert "singular_entropy,none" in json.loads(file.read_text())["results"]["lmsat_head"]


COLUMNS = ["place", "model", *(f"quantity {index}" for index in range(8))]


def tables_on(monkeypatch, capsys, width: int | None, rows: list) -> list[str]:
    """Return the lines that `print_table` prints on a terminal of a width, or into a file."""
    monkeypatch.setenv("NO_COLOR", "1")
    if width is not None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
    print_table("A title", COLUMNS, rows)
    return [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [40, 60, 100, 300])
def test_wide_tables_come_in_parts_on_a_terminal(monkeypatch, capsys, width):
    rows = [
        [index, f"some-model-{index}", *(index + quantity / 8 for quantity in range(8))] for index in range(3)
    ]
    lines = tables_on(monkeypatch, capsys, width, rows)
    assert max(map(len, lines)) <= width
    headings = [line for line in lines if "model  " in line and "some" not in line]
    assert " ".join(" ".join(headings).split()).replace(" model", "").count("quantity") == 8
    for index in range(3):
        own = [line for line in lines if f"some-model-{index}" in line]
        assert len(own) == len(headings)
        values = " ".join(own).replace(f"some-model-{index}", "").split()
        assert values == [f"{index}", *(f"{index + quantity / 8:.4g}" for quantity in range(8))]


def test_long_tables_stay_whole(monkeypatch, capsys):
    rows = [[index, "a name", *["some words that go on"] * 8] for index in range(60)]
    lines = tables_on(monkeypatch, capsys, 100, rows)
    assert max(map(len, lines)) <= 100
    assert sum("place" in line for line in lines) == 1


def test_tables_in_a_file_are_as_wide_as_they_need(monkeypatch, capsys):
    lines = tables_on(monkeypatch, capsys, None, [[1, "m" * 90, *["w" * 40] * 8]])
    assert len(lines) == 6
    assert any(line.split() == ["1", "m" * 90, *["w" * 40] * 8] for line in lines)

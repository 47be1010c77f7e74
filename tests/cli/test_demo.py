"""``lmsat demo``: what it trains and prints, on a small scale, and what it refuses."""

from __future__ import annotations

import functools
import json
import math

import pytest

from lmsat_plugin import demo
from lmsat_plugin.cli.main import main
from lmsat_plugin.page import figure_files


@pytest.fixture(autouse=True)
def _fewer_files(monkeypatch):
    """A figure's PDF takes the longest, and is not looked at here."""
    monkeypatch.setattr(figure_files, "_FORMATS", tuple(f for f in figure_files._FORMATS if f != "pdf"))


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
    small = functools.partial(demo.known_answer, widths=(4, 8), steps=(0, 70))
    monkeypatch.setattr(demo, "known_answer", small)
    monkeypatch.setattr(demo, "ask", lambda source, n, seed, ask=demo.ask: ask(source, 40, seed))
    assert main(["demo", "--long", "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.split("What is known")[1].splitlines() if "-w" in line][:3]
    assert [row[0] for row in rows] == ["fresh-w4", "fresh-w8", "repeated-w8"]
    for _, width, final, best, least, rate in rows:
        assert math.log(256) > float(final) >= float(best) > float(least) > float(rate), width
    assert float(rows[0][4]) > float(rows[1][4]) == float(rows[2][4])
    assert "memorises 65,024 tokens" in " ".join(printed.split())
    assert (tmp_path / "out" / "results" / "report" / "index.html").exists()

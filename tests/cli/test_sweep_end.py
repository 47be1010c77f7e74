"""What a sweep ends with: a verdict a model, the page's absolute path, two commands; never a lost exit code."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from result_trees import CORPUS, STEPS, Made, write_result, write_tree

from lmsat_plugin.cli import sweep_end
from lmsat_plugin.cli.main import main
from lmsat_plugin.cli.sweep_end import show_end, verdict_lines, wants_page


def config_of(output: Path, *corpora: str) -> SimpleNamespace:
    return SimpleNamespace(output=output, corpora=[SimpleNamespace(corpus=name) for name in corpora or (CORPUS,)])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return results of two models, of which one saturates."""
    folder = tmp_path_factory.mktemp("results")
    write_tree(folder, [Made("org/falls", 10**6), Made("org/rises", 10**7, rises_from=2000)], steps=STEPS)
    return folder


@pytest.fixture
def commands(monkeypatch):
    """Return the commands that would make a page, none of which is run; each ends with ``code``."""
    asked = SimpleNamespace(commands=[], code=0)

    def run(command, **_):
        asked.commands.append(command)
        return SimpleNamespace(returncode=asked.code)

    monkeypatch.setattr(sweep_end.subprocess, "run", run)
    return asked


def test_a_sweep_ends_with_verdicts_the_page_and_two_commands(tree, commands, capsys):
    show_end(config_of(tree), page=True)
    lines = capsys.readouterr().out.splitlines()
    verdicts = dict(line.split(": ", 1) for line in lines[:2])
    assert verdicts.keys() == {"org/falls", "org/rises"}
    assert verdicts["org/rises"].startswith("saturates: ")
    assert not verdicts["org/falls"].startswith("saturates: ")
    path = Path(lines[2].removeprefix("Report: "))
    assert path == tree.absolute() / "report" / "index.html"
    [command] = commands.commands
    assert command[-2:] == ["report", str(tree)]
    assert lines[3] == "Next:"
    for line in lines[4:]:
        program, *words = line.split()
        assert program == "lmsat"
        assert main(words) == 0
    assert len(lines) == 6


def test_of_several_corpora_the_first_is_reported(tmp_path, commands, capsys):
    for step in STEPS:
        write_result(tmp_path, "m", step, {"lmsat_loss": {"loss": 9.0 - step / 10**4}}, corpus="one")
        write_result(tmp_path, "m", step, {"lmsat_loss": {"loss": 9.0}}, corpus="two")
    show_end(config_of(tmp_path, "one", "two"), page=True)
    assert commands.commands[0][-2:] == ["--corpus", "one"]
    out = capsys.readouterr().out
    assert sum(line.startswith("m: ") for line in out.splitlines()) == 1
    assert out.splitlines()[-1].endswith("--corpus one")


def test_no_page_is_made_where_none_is_wanted(tree, commands, capsys, monkeypatch):
    show_end(config_of(tree), page=False)
    assert commands.commands == []
    assert "Report" not in capsys.readouterr().out
    monkeypatch.setenv("LMSAT_REPORT", "0")
    assert [wants_page(None), wants_page(True), wants_page(False)] == [False, True, False]
    monkeypatch.delenv("LMSAT_REPORT")
    assert [wants_page(None), wants_page(True), wants_page(False)] == [True, True, False]


def test_a_page_that_has_the_last_results_is_not_made_again(tmp_path, commands):
    write_result(tmp_path, "m", 1, {"lmsat_loss": {"loss": 2.0}})
    page = tmp_path / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("")
    os.utime(page, (now := time.time() + 1, now))
    show_end(config_of(tmp_path), page=True)
    assert commands.commands == []
    path = write_result(tmp_path, "m", 2, {"lmsat_loss": {"loss": 1.0}})
    os.utime(path, (now + 1, now + 1))
    show_end(config_of(tmp_path), page=True)
    assert len(commands.commands) == 1


def test_what_fails_at_the_end_is_a_sentence(tree, commands, capsys, monkeypatch):
    commands.code = 1
    show_end(config_of(tree), page=True)
    said = capsys.readouterr()
    assert f"the results are whole, but their report failed: try `lmsat report {tree}`" in said.err
    assert "org/rises: saturates" in said.out
    monkeypatch.setattr(sweep_end, "verdict_lines", lambda config: 1 / 0)
    show_end(config_of(tree), page=True)
    assert "their report failed: division by zero" in capsys.readouterr().err

    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_end, "verdict_lines", interrupted)
    show_end(config_of(tree), page=True)
    assert "the report was left out" in capsys.readouterr().err


def test_few_checkpoints_have_a_reason_for_no_verdict(tmp_path):
    write_result(tmp_path, "m", 1, {"lmsat_head": {"effective_rank": 2.0}})
    [line] = verdict_lines(config_of(tmp_path))
    assert line.startswith("No verdict: ")

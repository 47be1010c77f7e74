"""``lmsat report --watch``: the page follows the results, and an open page loads itself again in its view."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from chromium import BROWSER, Tab
from html_page import Page
from result_trees import write_result

from lmsat_plugin.cli.main import main
from lmsat_plugin.cli.sweep_end import live_page, show_end


def add(root, step: int) -> None:
    write_result(root, "m", step, {"lmsat_loss": {"loss": 5.0 - step / 100}, "lmsat_head": {"effective_rank": 9.0}})


def steps_in(page) -> list[int]:
    """Return the steps that a page shows; none while there is no page."""
    return Page(page.read_text("utf-8")).charts["models"][0]["at"] if page.exists() else []


def wait_for(condition) -> None:
    for _ in range(900):
        if condition():
            return
        time.sleep(0.3)
    raise AssertionError("never")


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_an_open_page_follows_the_results(tmp_path):
    page = tmp_path / "report" / "index.html"
    command = [sys.executable, "-m", "lmsat_plugin.cli", "report", str(tmp_path), "--watch", "0.5"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert watching.stdout is not None
        assert "Waiting: " in watching.stdout.readline()
        add(tmp_path, 1)
        wait_for(lambda: steps_in(page) == [1])
        with Tab(page, at="#x=share&m=lmsat_head+effective_rank&table.values=-2~step") as tab:
            tab.wait("charts.explorer.figure.panels[0].plot")
            tab.ask("void (window.isFirst = true)")
            add(tmp_path, 7)
            wait_for(lambda: steps_in(page) == [1, 7])
            tab.wait("!window.isFirst && window.charts && charts.values.models[0].at.length === 2")
            tab.wait("charts.explorer.figure.panels[0].plot")
            assert tab.ask("charts.explorer.figure.panels[0].drawn[0].x") == [pytest.approx(1 / 7), 1]
            assert tab.ask("charts.explorer.figure.panels[0].about.name") == "lmsat_head effective_rank"
            # The table is still filtered, and sorted by its second column, falling.
            assert tab.ask("document.querySelector('#values input').value") == "step"
            assert tab.ask("document.querySelectorAll('#values th')[1].ariaSort") == "descending"
            tab.click(".choices input[type=checkbox]")
            assert "live=off" in tab.ask("location.hash")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
    finally:
        watching.kill()
    assert "data-reload" not in page.read_text("utf-8").partition("<header>")[0]
    assert steps_in(page) == [1, 7]


def test_the_report_of_a_sweep_has_its_last_results(tmp_path):
    config = SimpleNamespace(output=tmp_path, corpora=[SimpleNamespace(corpus="held-out")])
    with live_page(config, 30.0):
        add(tmp_path, 1)
    page = tmp_path / "report" / "index.html"
    assert steps_in(page) == [1]
    assert "data-reload" not in page.read_text("utf-8").partition("<header>")[0]
    add(tmp_path, 2)
    show_end(config, page=True)
    assert steps_in(page) == [1, 2]


def test_a_report_is_opened(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)))
    add(tmp_path, 1)
    assert main(["report", str(tmp_path), "--open"]) == 0
    page = tmp_path / "report" / "index.html"
    assert opened == [page.as_uri()]
    assert f"no browser is known here: open {page}" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "1e9"])
def test_a_time_that_is_none_to_wait(tmp_path, capsys, seconds):
    assert main(["report", str(tmp_path), "--watch", seconds]) == 2
    assert "is not a number of seconds from 0 to 10,000,000" in capsys.readouterr().err

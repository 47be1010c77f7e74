"""lmsat's errors in lm-eval's command: one sentence, whatever imports how often."""

from __future__ import annotations

import logging
import sys

import pytest

from lmsat_plugin import errors
from lmsat_plugin.errors import LmsatError, sentence_for_lm_eval_command


@pytest.fixture
def shown(monkeypatch) -> list[BaseException]:
    """Return what reaches the excepthook of before."""
    shown: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: shown.append(error))
    monkeypatch.setattr(errors, "_previous_hook", None, raising=False)
    monkeypatch.setattr(errors, "print_printable_warnings", lambda: None)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lm_eval", "run"])
    return shown


def test_the_excepthook_is_wrapped_once(shown, capsys):
    sentence_for_lm_eval_command()
    hook = sys.excepthook
    for _ in range(3):
        sentence_for_lm_eval_command()
        assert sys.excepthook is hook
    hook(LmsatError, LmsatError("the corpus is empty: give another"), None)
    assert capsys.readouterr().err == "lmsat: error: the corpus is empty: give another\n"
    assert shown == []
    other = ValueError("somebody else's")
    hook(ValueError, other, None)
    assert shown == [other]


def test_a_traceback_is_there_for_who_asks(shown, monkeypatch):
    monkeypatch.setenv("LMSAT_DEBUG", "1")
    sentence_for_lm_eval_command()
    error = LmsatError("the corpus is empty")
    sys.excepthook(LmsatError, error, None)
    assert shown == [error]


def test_a_warning_is_said_once(capfd):
    handler = logging.lastResort
    with errors.each_warning_once():
        for text in ("one row is left out", "one row is left out", "another"):
            handler.handle(logging.LogRecord("lmsat_plugin.test", logging.WARNING, "", 1, text, (), None))
    assert not handler.filters
    assert capfd.readouterr().err.splitlines() == ["one row is left out", "another"]


def test_other_programs_are_left_alone(shown, monkeypatch):
    monkeypatch.setattr(errors, "print_printable_warnings", lambda: None)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    before = sys.excepthook
    sentence_for_lm_eval_command()
    assert sys.excepthook is before

"""Names from outside: a terminal gets no control characters, a spreadsheet no formulas, Markdown no links."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_trees import write_result

from lmsat_plugin import load_results
from lmsat_plugin.analysis.input_tables import read_csv
from lmsat_plugin.cli.main import main
from lmsat_plugin.markdown import as_text
from lmsat_plugin.outside_text import as_csv, as_csv_cell, from_csv_cell, printable

TITLE, BACKWARDS, EIGHT_BITS = "\x1b]0;owned\x07", "\u202etxt.exe", "\x9b31m"
HOSTILE = f"m{TITLE}{BACKWARDS}{EIGHT_BITS}\u2066x"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
OUR_OWN = re.compile(r"\x1b\[[\d;]*m|\r\n")
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "\t=1", "'quoted'", "plain", "a=1"]


@given(st.text())
def test_printable_text_can_be_printed(text):
    shown = printable(text)
    assert not FORBIDDEN.search(shown)
    assert "\n" not in shown
    shown.encode("utf-8")
    if not FORBIDDEN.search(text) and text.isprintable():
        assert shown == text


@given(st.text(alphabet=st.sampled_from("'=+-@\t\r\na1 ")))
def test_cells_are_read_back_as_they_were(text):
    assert from_csv_cell(as_csv_cell(text)) == text
    assert as_csv_cell(text)[:1] not in set("=+-@\t\r")


def test_a_csv_has_harmless_text_and_numbers_as_they_were(tmp_path):
    counts = pd.Series([1, None], dtype="Int64")
    table = pd.DataFrame({"=name": ["=1+1", "'x"], "value": [-1.5, 2.0], "count": counts, "mixed": [-3, None]})
    table["mixed"] = pd.Series([-3, None], dtype=object)
    lines = list(csv.reader(io.StringIO(as_csv(table))))
    assert lines == [["'=name", "value", "count", "mixed"], ["'=1+1", "-1.5", "1", "-3"], ["'x", "2.0", "", ""]]
    assert as_csv(table, raw=True) == table.to_csv(index=False)
    (tmp_path / "table.csv").write_text(as_csv(table), "utf-8")
    assert read_csv(tmp_path / "table.csv")["=name"].tolist() == ["=1+1", "'x"]


CELLS = st.text(alphabet=st.sampled_from("ab ,\"\n='é")) | st.none()


@given(st.lists(st.tuples(CELLS, st.floats(), st.integers(0, 2**62) | st.none(), st.booleans() | st.none())))
def test_a_csv_is_that_of_pandas(rows):
    columns = ("text", "value", "count", "is")
    table = pd.DataFrame(rows, columns=columns, dtype=object).astype(
        {"value": float, "count": "Int64", "is": "boolean"}
    )
    table["date"] = pd.to_datetime(range(len(rows)), unit="s", utc=True)
    table["whole"] = range(len(rows))
    table["mixed"] = pd.Series([row[index % 4] for index, row in enumerate(rows)], dtype=object)
    assert as_csv(table, raw=True) == table.to_csv(index=False)
    assert as_csv(table[["text"]], raw=True) == table[["text"]].to_csv(index=False)


def test_carriage_returns_stay_in_their_cell():
    table = pd.DataFrame({"a": ["x\ry", "\r"], "b": [1, 2]})
    assert pd.read_csv(io.StringIO(as_csv(table, raw=True), newline="")).a.tolist() == ["x\ry", "\r"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for index, name in enumerate([HOSTILE, *FORMULAS[:5]]):
        for step in (1, 2, 4, 8):
            write_result(root, name, step, {"lmsat_loss": {"loss": 3.0 - step / 10 + index / 100}}, 1000 + index)
    return root


def test_commands_write_harmless_csv_unless_told_otherwise(tree, tmp_path, capsys):
    for command in ("results", "leaderboard"):
        table = {}
        for raw in (False, True):
            path = tmp_path / f"{command}{raw}.csv"
            assert main([command, str(tree), "--format", "csv", "--output", str(path), *["--raw"] * raw]) == 0
            table[raw] = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
        assert {row["model"][0] for row in table[False]} == {"'", "m"}
        assert {row["model"] for row in table[True]} >= {"=1+1", "@SUM(A1)", HOSTILE}
        assert {from_csv_cell(row["model"]) for row in table[False]} == {row["model"] for row in table[True]}
        numbers = "value" if command == "results" else "loss"
        assert [row[numbers] for row in table[False]] == [row[numbers] for row in table[True]]
    back = read_csv(tmp_path / "resultsFalse.csv")
    assert set(back.model) == set(load_results(tree).model)
    assert main(["saturation", str(tmp_path / "resultsFalse.csv"), "--json"]) == 0
    assert {entry["model"] for entry in json.loads(capsys.readouterr().out)} >= {"=1+1", "+1", HOSTILE}


def test_pages_have_no_control_characters(tree, tmp_path):
    assert main(["leaderboard", str(tree), "--format", "html", "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "owned" in page
    assert FORBIDDEN.findall(page) == []


def on_a_terminal(code: str) -> str:
    """Return what Python code writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    parts = []
    # A terminal whose other end is closed gives an error, not an end.
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert running.wait() == 0
    return b"".join(parts).decode("utf-8")


def test_no_control_character_reaches_a_terminal(tree, tmp_path):
    """Through tables, sentences, formats, warnings, errors, and what a sweep shows as it goes."""
    (tmp_path / f"results_{HOSTILE.replace('/', '')}.json").write_text("{", "utf-8")
    write_result(tmp_path, HOSTILE, 1, {"lmsat_loss": {"loss": 3.0}})
    commands = [
        ["results", str(tmp_path)],
        *(["results", str(tree), "--format", form] for form in ("csv", "md", "latex", "json")),
        ["leaderboard", str(tree)],
        ["saturation", str(tree)],
        ["results", str(tree), "--model", HOSTILE[:-1]],
        ["results", f"{tmp_path}/{HOSTILE}"],
        ["report", str(tree), "--no-such-option", HOSTILE],
    ]
    code = f"""
from lmsat_plugin.cli.main import main
from lmsat_plugin.sweeps.progress_display import ProgressDisplay
for command in {commands!r}:
    try:
        main(command)
    except SystemExit:
        pass
display = ProgressDisplay(3)
for error in (None, {HOSTILE!r}):
    display.begin({HOSTILE!r})
    display.end({HOSTILE!r}, {{{HOSTILE!r}: 1.0}}, error)
display = ProgressDisplay(3, prefix="worker 1 ")
display.end({HOSTILE!r}, {{{HOSTILE!r}: 1.0}}, {HOSTILE!r})
"""
    written = on_a_terminal(code)
    assert written.count("owned") > 20
    assert "is skipped" in written
    # tqdm moves its bar by these.
    text = OUR_OWN.sub("\n", written).replace("\r", "").replace("\x1b[A", "")
    assert FORBIDDEN.findall(text) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://a.com", r"see https\://a.com"),
        ("ftp://a.com/www.b.com", r"ftp\://a.com/www\.b.com"),
        ("WWW.a.com", r"WWW\.a.com"),
        ("me@a.com", "me@<!-- -->a.com"),
        ("@user", "@<!-- -->user"),
        ("a_b _c_ __d__", r"a_b \_c\_ \_\_d\_\_"),
        ("model @ step 1.5: 3//2", "model @ step 1.5: 3//2"),
    ],
)
def test_markdown_makes_no_links(text, shown):
    """The right side was tried with cmark-gfm, the parser that GitHub uses."""
    assert as_text(text) == shown

"""Every command that answers writes the same formats, and the same numbers in each."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from result_trees import Made, write_tree

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.formats import FORMATS, table_of
from lmsat_plugin.cli.guide import COMMANDS
from lmsat_plugin.cli.main import main
from lmsat_plugin.cli.parser import build_parser, subcommands
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.glossary import WORDS

LISTS = ("saturation", "noise", "results")
OTHERS = ("leaderboard", "verify", "probes", "explain")
OF_NO_DATA = ("probes", "explain", "doctor")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_tree(folder, [Made("m10", 10**7), Made("m2", 2 * 10**6)], steps=(1, 16, 256, 1000))
    return folder


@pytest.fixture
def answer(tree, capsys, tmp_path):
    """Return a function that returns what a command prints, or writes to a file."""

    def answer(name: str, *options: str) -> str:
        data = [] if name in OF_NO_DATA else [str(tree)]
        assert main([name, *data, *options]) == 0
        return capsys.readouterr().out

    return answer


def test_all_that_answer_take_all_formats():
    parsers = subcommands(build_parser())
    for command in COMMANDS:
        if issubclass(command, AnsweringCommand):
            form = parsers[command.name]._option_string_actions["--format"]
            assert {"table", *FORMATS} <= set(form.choices), command.name
            assert "--json" in parsers[command.name]._option_string_actions


@pytest.mark.parametrize("name", [*LISTS, *OTHERS])
def test_json_is_the_format_json(answer, name):
    assert answer(name, "--json") == answer(name, "--format", "json")
    json.loads(answer(name, "--json"))


@pytest.mark.parametrize("name", LISTS)
def test_tables_have_a_row_for_each_entry_of_the_json(answer, name, tmp_path):
    entries = json.loads(answer(name, "--json"))
    table = pd.read_csv(io.StringIO(answer(name, "--format", "csv")))
    answer(name, "--format", "parquet", "--output", str(tmp_path / "t.parquet"))
    for read in (table, pd.read_parquet(tmp_path / "t.parquet")):
        assert len(read) == len(entries)
        for key, value in entries[0].items():
            if isinstance(value, str | float) and key not in ("date", "commit"):
                assert read[key][0] == (pytest.approx(value) if isinstance(value, float) else value)
    # m2 before m10.
    assert list(dict.fromkeys(table.get("model", ["m2", "m10"]))) == ["m2", "m10"]


@pytest.mark.parametrize("name", [*LISTS, *OTHERS])
def test_text_has_the_tables_for_people(answer, name):
    assert answer(name, "--format", "md").startswith("| ") or name == "verify"
    assert "\\toprule" in answer(name, "--format", "latex")


def test_the_findings_of_doctor_in_each_format(answer, monkeypatch):
    monkeypatch.setattr("lmsat_plugin.harness.command.finds_tasks", lambda: ["lmsat_loss"])
    printed = io.StringIO()
    monkeypatch.setattr("sys.stdout", printed)
    codes = [main(["doctor", "--format", form]) for form in ("json", "csv", "table")]
    assert len(set(codes)) == 1
    text, end = json.JSONDecoder().raw_decode(printed.getvalue())
    assert text["lm_eval --tasks"] == ["lmsat_loss"]
    rows = pd.read_csv(io.StringIO(printed.getvalue()[end:].split("\nlmsat doctor")[0]))
    assert rows.set_index("what").found["torch"] == text["torch"]


def test_explained_words_are_the_rows(answer):
    entries = json.loads(answer("explain", "--json"))
    assert len(entries) == len(WORDS)
    table = pd.read_csv(io.StringIO(answer("explain", "--format", "csv")))
    assert table.meaning.tolist() == [word.meaning for word in WORDS]


def test_report_prints_what_it_wrote_as_json(tree, tmp_path, capsys):
    assert main(["report", str(tree), "--model", "m10", "--output", str(tmp_path / "page"), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    page = Path(written["page"])
    assert page.is_file()
    assert {"values.csv", "figures/loss-by-step.svg"} <= {*written["files"]}
    assert all((page.parent / name).is_file() for name in written["files"])
    [saturation] = [each for each in written["verdicts"] if each["title"] == "Saturation"]
    assert saturation["sentences"][0][0] == "m10"
    assert main(["report", str(tree), "--json", "--watch"]) == 2
    assert "leave one out" in capsys.readouterr().err


def test_what_entries_hold_in_mappings_has_columns_and_in_lists_is_json():
    entries = [{"a": {"b": 1, "c": {"d": 2.5}}, "e": [1, 2]}, {"a": {"b": None}, "e": []}]
    table = table_of(Answer(data=entries, parts=[]))
    assert table.columns.tolist() == ["a.b", "a.c.d", "e"]
    assert table.e.tolist() == ["[1, 2]", "[]"]
    assert table["a.b"].isna().tolist() == [False, True]


def test_without_entries_the_tables_for_people_follow_each_other():
    parts = [TextTable("One", ("a", "b"), [(1, "x")]), "A sentence.", TextTable("Two", ("a",), [(2,)])]
    assert table_of(Answer(data={}, parts=parts)).table.tolist() == ["One", "Two"]
    assert table_of(Answer(data={}, parts=parts[:2])).to_dict("records") == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize("name", ["saturation", "probes"])
def test_what_a_terminal_cannot_show_needs_a_file(tree, capsys, name):
    data = [] if name in OF_NO_DATA else [str(tree)]
    assert main([name, *data, "--format", "parquet"]) == 2
    assert "--format parquet is not for a terminal: name a file with --output FILE" in capsys.readouterr().err
    assert main([name, *data, "--output", "x.csv"]) == 2
    assert "takes no table for people: add --format csv, json, md, latex or parquet" in capsys.readouterr().err

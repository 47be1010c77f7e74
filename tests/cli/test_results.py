"""``lmsat results``: each format read back, what people see, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from result_files import new, ours, write

from lmsat_plugin.cli.main import main
from lmsat_plugin.results import load_results
from lmsat_plugin.results.table import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path) -> Path:
    write(tmp_path / "tree/1/results_1.json", ours(3.5, args={"pretrained": "a/b_c", "revision": "step1"}))
    bad = {"alias": "x", "acc,none": math.inf, "acc_norm,none": math.nan, "odd|<i>,none": 50000.0}
    name = "=\"quoted\" & <script>, 50%_|'x'"
    write(tmp_path / "tree/2/results_1.json", new({"piqa\nzwei": bad}, {"pretrained": name}))
    return tmp_path / "tree"


def printed(capsys, *arguments) -> str:
    assert main(["results", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refuse(token: str) -> float:
    raise ValueError(token)


def test_json_is_strict(tree, capsys):
    rows = json.loads(printed(capsys, tree, "--format", "json"), parse_constant=refuse)
    assert [list(row) for row in rows] == [list(COLUMNS)] * 4
    loss = next(row for row in rows if row["metric"] == "loss")
    assert (loss["value"], loss["stderr"], loss["step"], loss["higher_is_better"]) == (3.5, 0.25, 1, False)
    assert loss["date"] == "2023-11-14T22:13:20+00:00"
    odd = {row["metric"]: row for row in rows if row["task"] == "piqa\nzwei"}
    assert odd["acc"]["value"] is odd["acc_norm"]["value"] is odd["acc"]["corpus"] is odd["acc"]["step"] is None
    assert odd["odd|<i>"]["value"] == 50000


def test_csv_reads_back(tree, capsys):
    rows = list(csv.DictReader(io.StringIO(printed(capsys, tree, "--format", "csv", "--raw"), newline="")))
    assert len(rows) == 4
    assert list(rows[0]) == list(COLUMNS)
    assert {row["model"] for row in rows} == {"a/b_c", "=\"quoted\" & <script>, 50%_|'x'"}
    assert [row["value"] for row in rows if row["metric"] == "loss"] == ["3.5"]
    assert {row["step"] for row in rows} == {"1", ""}


def test_markdown_and_latex_escape(tree, capsys):
    markdown = printed(capsys, tree, "--format", "md").splitlines()
    assert len(markdown) == 6
    widths = {line.replace("\\|", "").count("|") for line in markdown}
    assert len(widths) == 1
    assert "<" not in "".join(markdown)
    assert "path" not in markdown[0]
    assert "tokens" not in markdown[0], "md and latex are for people"
    latex = printed(capsys, tree, "--format", "latex")
    assert "a/b\\_c & 1 & sample" in latex
    assert "\\& \\textless{}script\\textgreater{}, 50\\%\\_\\textbar{}'x'" in latex
    body = [line for line in latex.splitlines() if line.endswith("\\\\")]
    assert len(body) == 5
    assert {line.replace("\\&", "").count("&") for line in body} == {body[0].count("&")}


def test_latex_holds_no_control_characters(tmp_path, capsys):
    write(tmp_path / "results_1.json", new(args={"pretrained": "a\u202eb\x1b[1m", "revision": "step1"}))
    latex = printed(capsys, tmp_path, "--format", "latex")
    assert "u202eb" in latex
    assert [letter for letter in latex if not letter.isprintable() and letter != "\n"] == []


def test_latex_is_whole_however_long(tree, capsys):
    latex = printed(capsys, tree, "--format", "latex")
    with pd.option_context("styler.render.max_elements", 4):
        assert printed(capsys, tree, "--format", "latex") == latex
    assert "..." not in latex


def test_parquet_reads_back(tree, tmp_path, capsys):
    printed(capsys, tree, "--format", "parquet", "--output", tmp_path / "x" / "t.parquet")
    back, table = pd.read_parquet(tmp_path / "x" / "t.parquet"), load_results(tree)
    assert list(back.columns) == list(COLUMNS)
    assert list(back.model) == list(table.model)
    assert back.value.equals(table.value)
    assert list(back.date) == list(table.date)
    assert back.step.isna().tolist() == table.step.isna().tolist()
    assert main(["results", str(tree), "--format", "parquet"]) == 2
    assert "--output" in capsys.readouterr().err


def test_output_is_what_would_be_printed(tree, tmp_path, capsys):
    printed(capsys, tree, "--format", "csv", "--output", tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text("utf-8") == printed(capsys, tree, "--format", "csv")
    assert main(["results", str(tree), "--output", str(tmp_path / "t.txt")]) == 2


def test_the_table_for_people(tree, capsys):
    shown = printed(capsys, tree)
    assert "a/b_c" in shown
    assert "lmsat_loss" in shown
    assert "50,000" in shown
    assert "main" in shown, "the revision stands in for a step that is not known"
    assert "nan" not in shown.replace("piqa", "")
    # What is the same everywhere is left out.
    assert "filter" not in shown


def test_globs(tree, capsys):
    def metrics(*arguments):
        return [row["metric"] for row in json.loads(printed(capsys, tree, "--format", "json", *arguments))]

    assert metrics("--task", "lmsat_*") == ["loss"]
    assert metrics("--metric", "acc*") == ["acc", "acc_norm"]
    assert metrics("--model", "a/*", "--metric", "l*") == ["loss"]
    assert main(["results", str(tree), "--task", "arc*"]) == 2
    error = capsys.readouterr().err
    assert "--task arc*" in error
    assert error.count("\n") == 1
    assert "lmsat_loss" in error


def test_options_reach_the_table(tmp_path, capsys):
    for number in (1, 2):
        write(tmp_path / f"results_{number}.json", new(args={"pretrained": "a/b", "revision": "it5"}, date=number))
    options = ["--format", "json", "--step-pattern", r"it(?P<step>\d+)", "--tokens-per-step", "3"]
    [row] = json.loads(printed(capsys, tmp_path, *options))
    assert (row["step"], row["tokens"]) == (5, 15)
    assert len(json.loads(printed(capsys, tmp_path, "--all", *options))) == 2


def test_checkpoints_of_one_step_are_told_apart(tmp_path, capsys):
    for number, revision in enumerate(("step5", "average:3@step5", "step7")):
        write(tmp_path / f"results_{number}.json", new(args={"pretrained": "a/b", "revision": revision}, date=number))
        shown = printed(capsys, tmp_path)
        assert ("average:3@step5" in shown) == ("revision" in shown) == (number > 0)


@pytest.mark.parametrize("form", ["table", "csv"])
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_stops_early_is_no_error(tmp_path, form, reader):
    many = {f"task{i}": {"acc,none": 0.5} for i in range(3000)}
    write(tmp_path / "results_1.json", new(many))
    command = f"{sys.executable} -m lmsat_plugin.cli results {tmp_path} --format {form} | {reader}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("\n") == (reader != "true")
    assert done.stderr == ""


def test_nothing_to_read_is_one_sentence(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "missing", write(tmp_path / "x" / "config.json", "{}")):
        assert main(["results", str(path)]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("lmsat: error:")
        assert shown.count("\n") == 1

"""A fuzzer of CSV files for each analysis. The numbers in them are those that Python's own csv and float read there."""

from __future__ import annotations

import csv
import io
import json
import re
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hostile_inputs import LIKE_NUMBERS, TEXTS, cut, fuzzed, run, scalars
from hypothesis import given
from hypothesis import strategies as st
from law_tables import chinchilla_table

from lmsat_plugin.analysis.input_tables import as_floats, read_csv
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = [
    *("model", "n_params", "n_params_non_embedding", "tokens", "step", "steps", "loss", "task", "metric", "value"),
    *("flops", "corpus", "variant", "layers", "width", "heads", "batch_tokens", "position", "other_loss", "stderr"),
    *("score", "size", "run", "n_samples", "chance"),
]
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@st.composite
def tables(draw: Any) -> str:
    """Return a CSV with the columns of a law, or any, in which some cells, rows and perhaps a name are replaced."""
    if draw(st.booleans()):
        frame = chinchilla_table(draw(st.integers(1, 12)), seed=draw(st.integers(0, 9)))
        head, rows = list(frame.columns), frame.to_numpy().tolist()
    else:
        head = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True))
        texts = {
            name: draw(st.sampled_from(["m", "lmsat_loss", "loss", "acc"])) for name in ("model", "task", "metric")
        }
        rows = [[texts.get(name, float(row)) for name in head] for row in range(1, draw(st.integers(2, 9)))]
    for _ in range(draw(st.integers(0, 4))):
        cell = draw(scalars() | st.sampled_from(LIKE_NUMBERS))
        rows[draw(st.integers(0, len(rows) - 1))][draw(st.integers(0, len(head) - 1))] = cell
    if draw(st.integers(0, 4)) == 0:
        # The same in a whole column: pandas chooses a type for it.
        column, cell = draw(st.integers(0, len(head) - 1)), draw(st.sampled_from(LIKE_NUMBERS))
        rows = [[*row[:column], cell, *row[column + 1 :]] for row in rows]
    if draw(st.integers(0, 4)) == 0:
        # Longer or shorter than the first line, one row or all.
        change = draw(st.sampled_from([lambda row: row[:-1], lambda row: [*row, 7], lambda row: [*row, ""]]))
        every = draw(st.booleans())
        rows = [change(row) if every or index == 0 else row for index, row in enumerate(rows)]
    if draw(st.booleans()):
        head[0] = draw(st.sampled_from([*COLUMNS, *TEXTS]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def check_numbers(path: Path) -> None:
    """Check the numbers that are read from a CSV, as far as it can be said what is right."""
    try:
        table = read_csv(path)
    except LmsatError:
        return
    try:
        read = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        head, *rows = [row for row in read if row not in ([], [""])]
    except (ValueError, csv.Error):
        return
    assert all(len(row) <= len(head) or not any(row[len(head) :]) for row in rows), "a longer row is not refused"
    names = [name.strip() for name in head]
    if len(set(names)) < len(names) or "" in names or len(names) == 1 or len(rows) != len(table):
        return
    for column, name in enumerate(names):
        if name not in table.columns:
            continue
        for row, value in zip(rows, as_floats(table[name]), strict=True):
            cell = row[column].strip() if column < len(row) else ""
            if NUMBER.fullmatch(cell):
                # What float64 cannot hold is infinity, or no number where Python limits the digits.
                assert value == float(cell) or not (isfinite(value) or isfinite(float(cell))), (name, cell, value)
            elif np.isfinite(value):
                # What else may be read as a number has to be one for Python, too.
                assert value == float(cell), (name, cell, value)


LAWS = ("chinchilla", "kaplan-n", "kaplan-d", "kaplan-c", "kaplan-nd", "kaplan-ns", "context", "transfer")
ANALYSES = [
    *(["fit", law, "--repetitions=5"] for law in LAWS),
    ["saturation"],
    ["emergence"],
    ["noise"],
    ["fit", "direct", "--repetitions", "5"],
    ["efficiency"],
    ["shape"],
]


@fuzzed(20)
@given(table=tables(), command=st.sampled_from(ANALYSES))
def test_tables_of_analyses(folder, table, command):
    path = folder / "table.csv"
    path.write_bytes(table.encode("utf-8", "replace"))
    code, out = run([*command, str(path), "--json"])
    if code == 0:
        json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@fuzzed(40)
@given(table=tables())
def test_numbers_of_tables(folder, table):
    path = folder / "numbers.csv"
    path.write_bytes(table.encode("utf-8", "replace"))
    check_numbers(path)


@fuzzed(40)
@given(content=cut(chinchilla_table(6).to_csv(index=False).encode()) | st.binary(max_size=60))
def test_cut_tables(folder, content):
    path = folder / "cut.csv"
    path.write_bytes(content)
    check_numbers(path)
    run(["shape", str(path)])

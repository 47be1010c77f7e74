"""Tables that analyses read: numbers, and CSV files."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin.analysis.input_tables import as_floats, check_steps, numbers, of_corpora, of_variant, read_csv
from lmsat_plugin.errors import LmsatError


def test_numbers():
    table = pd.DataFrame({"a": ["1", "x", 3], "b": [1, 2, 0], "name": list("pqr")})
    found = numbers(table, ["a"], optional=["b", "c"])
    assert found.a.tolist() == [1.0, 3.0]
    assert found.b.dtype == np.float64
    with pytest.raises(LmsatError, match="row 3 has b=0, which must be above 0"):
        numbers(table, ["a", "b"], positive=["b"])
    with pytest.raises(LmsatError, match="no column 'c': it needs a, c, and has a, b, name"):
        numbers(table, ["a", "c"])


def test_csv(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("model, loss \nm, 3.5\n", "utf-8")
    assert read_csv(path).columns.tolist() == ["model", "loss"]
    path.write_text("model,loss\n", "utf-8")
    with pytest.raises(LmsatError, match="no rows"):
        read_csv(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LmsatError, match="cannot be read as CSV"):
        read_csv(path)


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_cells_between_other_signs_than_commas_are_named(sign, name, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(sign.join(("model", "step", "loss")) + "\n" + sign.join(("m", "1", "3,5")) + "\n", "utf-8")
    with pytest.raises(LmsatError, match=f"t.csv has {name} between its cells: save it with commas"):
        read_csv(path)


def test_decimal_commas_are_named():
    with pytest.raises(LmsatError, match=r"finite number for loss \(row 1 has '3,5'\): write numbers with a decimal"):
        numbers(pd.DataFrame({"loss": ["3,5", "3,4"]}), ["loss"])


@pytest.mark.parametrize("step", [-1, 0.5, 1e30])
def test_steps_that_no_training_has_are_refused(step):
    with pytest.raises(LmsatError, match=re.escape(f"row 2 has step={step:g}, which")):
        check_steps(pd.DataFrame({"step": [0, step]}))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("m,2,2.5,7", "its rows have more cells than its first line"),
        ("m,2,2.5,7\nm,3,2.25,7", "its rows have more cells than its first line"),
        ("m,2,2.5\nm,3,2.25,7", "Expected 3 fields in line 3, saw 4"),
        ("m,2,2.5\0006", "it holds zero bytes"),
    ],
)
def test_a_csv_in_which_numbers_would_be_taken_for_others_is_refused(tmp_path, rows, said):
    """pandas would take the first column for names of the rows, and end a number at a zero byte."""
    path = tmp_path / "t.csv"
    path.write_text(f"model,step,loss\n{rows}\n", "utf-8")
    with pytest.raises(LmsatError, match=said):
        read_csv(path)


def test_numbers_of_a_csv_are_exact_and_nothing_else_is_one(tmp_path):
    path = tmp_path / "t.csv"
    texts = ["0.30000000000000004", "8.41e-21", "123456789.123456789", "9007199254740993", "5.", "+.5"]
    lines = "".join(f"{text},true,{'True' if index else 'x'},\n" for index, text in enumerate(texts))
    path.write_text(f"loss,flag,mixed\n{lines}", "utf-8")
    table = read_csv(path)
    assert as_floats(table.loss).tolist() == [float(text) for text in texts]
    assert as_floats(table.flag).isna().all()
    assert as_floats(table.mixed).isna().all()
    assert as_floats(pd.Series([True, 2, None, np.bool_(False)])).tolist()[1] == 2
    assert as_floats(pd.Series([True, 2, None, np.bool_(False)])).isna().tolist() == [True, False, True, True]


def test_corpora_and_variants_of_a_table():
    table = pd.DataFrame({"corpus": ["a", "b", None, "a"], "variant": ["x=1", None, "x=1", None], "loss": range(4)})
    assert of_corpora(table, ["b", "a"]).loss.tolist() == [1, 0, 3, 2]
    assert of_corpora(table, ["a"]).loss.tolist() == [0, 2, 3]
    assert of_variant(table, "x=1").loss.tolist() == [0, 2]
    for choose, name, said in (
        (of_corpora, ["c"], "no result has --corpus c: give some of a, b"),
        (of_variant, "x=2", "no row of the table has the variant 'x=2'"),
    ):
        with pytest.raises(LmsatError, match=said):
            choose(table, name)
    with pytest.raises(LmsatError, match="the table has no column corpus: leave out --corpus"):
        of_corpora(table[["loss"]], ["a"])


@pytest.mark.parametrize("cells", [["2" * 400, "3"], [10**400, 3], [-(10**400), 3.0], ["2" * 400, "2" * 400]])
def test_whole_numbers_beyond_float64_are_infinite(cells):
    found = as_floats(pd.Series(cells, dtype=object))
    assert [abs(value) for value in found] == [float("inf"), float(cells[1])]
    assert found[0] < 0 or cells[0] != -(10**400)


def test_odd_lines_shift_no_cell(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"model,loss\na,1\n\r,2\nb,3\n")
    assert list(read_csv(path).loss) == [1, 2, 3]
    # An empty cell more than the first line has, in every row.
    path.write_bytes(b"model,loss\na,nan,\nb,2.5,\n")
    assert [str(loss) for loss in read_csv(path).loss] == ["nan", "2.5"]


def test_a_column_of_another_name_is_named():
    """What analyses have added to the table is no column of the user's."""
    table = pd.DataFrame({"step": [1], "val_loss": [2.0], "series": [0], "higher_is_better": [False]})
    with pytest.raises(LmsatError, match=r"did you mean val_loss\? Then rename it to loss"):
        numbers(table, ["step", "loss"])
    with pytest.raises(LmsatError, match=r"no column 'tokens': it needs step, tokens, and has step, val_loss$"):
        numbers(table, ["step", "tokens"])

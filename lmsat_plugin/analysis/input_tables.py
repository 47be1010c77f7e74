"""The tables that analyses take: a CSV's or the tidy table of results, chosen by corpus, checked for numbers."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import read_file
from lmsat_plugin.outside_text import from_csv_cell, map_text, shortened
from lmsat_plugin.results.patterns import matching
from lmsat_plugin.results.series import in_series
from lmsat_plugin.results.tree import Results
from lmsat_plugin.settings import closest

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_LEAST, _MOST = 1e-30, 1e60
_MOST_STEPS = 1e15
"""Below the numbers whose neighbours float64 does not tell apart."""

TIDY = ("model", "task", "metric", "value")
"""The columns that make a table one of results."""
_ADDED = ("branch", "replicate", "axis", "at", "higher_is_better", "series", "group")
"""Columns that analyses add to a table of the user's."""
_COUNTS = ("step", "tokens", "words", "total_step", "total_tokens")


def read_csv(path: Path) -> pd.DataFrame:
    """Return the rows of a CSV file, in which lmsat may have made text harmless to spreadsheets.

    Raises `LmsatError` for a file that cannot be read, and for one without rows."""
    import pandas as pd

    try:
        data = read_file(path)
        _check_commas(path, data)
        table = _parsed(data)
    except (OSError, ValueError, OverflowError) as error:
        raise LmsatError(
            f"{path} cannot be read as CSV ({first_sentence(error)}): give a file whose first line names its columns"
        ) from error
    table.columns = table.columns.map(str.strip)
    table = map_text(table, from_csv_cell)
    if table.empty:
        raise LmsatError(f"{path} has no rows below its first line: add one for each checkpoint")
    if "loss" in table.columns and table["loss"].isna().any():
        # pandas reads a cell that is empty and one that says nan alike: the first is not measured, the other is NaN.
        texts = _parsed(data, as_text=True)
        cells = zip(table["loss"], texts.iloc[:, list(table.columns).index("loss")], strict=True)
        losses = [None if pd.isna(loss) and not _says_nan(text) else loss for loss, text in cells]
        table["loss"] = pd.Series(losses, index=table.index, dtype=object)
    return table


def _check_commas(path: Path, data: bytes) -> None:
    """Raise `LmsatError` for a first line that has semicolons or tabs between its names, and no comma."""
    first = data.lstrip().splitlines()[0] if data.strip() else b""
    used = next((name for sign, name in ((b";", "semicolons"), (b"\t", "tabs")) if sign in first), None)
    if used is not None and b"," not in first:
        raise LmsatError(f"{path} has {used} between its cells: save it with commas there, and points in its numbers")


def read_csvs(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the rows of several CSV files as one table. Raises `LmsatError` as `read_csv`."""
    import pandas as pd

    tables = [read_csv(path) for path in paths]
    return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)


def _parsed(data: bytes, *, as_text: bool = False) -> pd.DataFrame:
    """Return a CSV's rows as pandas reads them, without its guesses. Raises ValueError for what it cannot read.

    ``as_text`` leaves every cell as it is, in rows that were read before.
    """
    import pandas as pd

    if b"\0" in data:
        # pandas would end a cell there, in the middle of a number.
        raise ValueError("it holds zero bytes, as UTF-16 does; CSV is UTF-8")
    # After an empty line that ends with a carriage return alone, pandas loses a row's empty first cell.
    data = re.sub(rb"(?<![^\r\n])\r(?=,)", b"\n", data)
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False} if as_text else {}
    try:
        with warnings.catch_warnings():
            # As text, an empty cell more than the first line has is a cell.
            warnings.simplefilter("ignore" if as_text else "error", pd.errors.ParserWarning)
            # Where rows have a cell more than the first line, pandas would take the first column for their names, and
            # each number for that of the column before.
            return pd.read_csv(
                io.BytesIO(data), skipinitialspace=True, index_col=False, float_precision="round_trip", **options
            )
    except pd.errors.ParserWarning as error:
        raise ValueError("its rows have more cells than its first line") from error


def _says_nan(cell: str) -> bool:
    return cell.strip().lower().lstrip("+-") == "nan"


def is_tidy(table: pd.DataFrame) -> bool:
    """Return whether a table holds results by task and metric, as `lmsat_plugin.load_results` returns them."""
    return set(TIDY) <= set(table.columns)


def table_of(data: Results | pd.DataFrame) -> pd.DataFrame:
    """Return the table of results; a table is returned as it is."""
    return data.table if isinstance(data, Results) else data


def series_in(data: Results | pd.DataFrame) -> pd.DataFrame:
    """Return the table of results by series: see `in_series`."""
    if isinstance(data, Results):
        return data.series
    counts = [name for name in _COUNTS if name in data.columns and data[name].dtype.kind in "Ob"]
    return in_series(data.assign(**{name: as_floats(data[name]) for name in counts}))


def as_floats(column: pd.Series) -> pd.Series:
    """Return a column as float64, with NaN for what is no number: text, and what is true or false."""
    import pandas as pd

    if column.dtype == bool or column.dtype == object:
        column = column.map(lambda cell: None if isinstance(cell, bool | np.bool_) else cell).astype(object)
    try:
        return pd.to_numeric(column, errors="coerce").astype("float64")
    except OverflowError:
        return pd.to_numeric(column.map(_within_float64).astype(object), errors="coerce").astype("float64")


def _within_float64(cell: Any) -> Any:
    """Return a whole number that float64 cannot hold as infinity, and any other cell as it is."""
    try:
        return float(cell) if isinstance(cell, int) or (isinstance(cell, str) and cell.isdecimal()) else cell
    except OverflowError:
        return np.inf if cell > 0 else -np.inf


def is_not_finite(column: pd.Series) -> pd.Series:
    """Return where a column holds NaN or infinity, as the value of a run that diverged; not where a value is missing.

    Missing are empty cells of a CSV, None, pandas' NA, and text.
    """
    if column.dtype == object:
        return column.map(lambda cell: isinstance(cell, float) and not np.isfinite(cell)).astype(bool)
    return column.notna() & np.isinf(as_floats(column)) | (column.isna() & (column.dtype.kind == "f"))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dicts, with None for what is missing."""
    import pandas as pd

    rows = table.to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def lacking(missing: str, needed: Sequence[str], table: pd.DataFrame) -> LmsatError:
    """Return the error for a table without a needed column, which names the column that may be meant."""
    own = [str(name) for name in table.columns if name not in _ADDED]
    meant = next((name for name in own if missing in name.lower().split("_")), None) or closest(missing, own)
    if meant is not None and meant not in needed:
        return LmsatError(f"the table has no column '{missing}': did you mean {meant}? Then rename it to {missing}")
    return LmsatError(
        f"the table has no column '{missing}': it needs {', '.join(needed)}, and has {', '.join(own) or 'none'}"
    )


def of_corpora(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the rows measured on some corpora, in the order of ``names``, and the rows measured on no corpus.

    Raises `LmsatError` for a corpus that is not in the table.
    """
    if "corpus" not in table.columns:
        raise LmsatError("the table has no column corpus: leave out --corpus")
    chosen = matching(table.corpus.dropna(), "corpus", names)
    kept = table[table.corpus.isna() | table.corpus.isin(chosen)]
    if len(chosen) == 1:
        return kept
    places = {name: place for place, name in enumerate(chosen)}
    return kept.sort_values("corpus", key=lambda column: column.map(places), kind="stable")


def of_variant(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Return the rows of one variant. Raises `LmsatError` if there is none."""
    kept = table[table.variant == variant] if "variant" in table.columns else table[:0]
    if kept.empty:
        raise LmsatError(f"no row of the table has the variant '{variant}': leave out --variant, or correct it")
    return kept


def numbers(
    table: pd.DataFrame,
    needed: Sequence[str],
    *,
    optional: Sequence[str] = (),
    positive: Sequence[str] = (),
    level: int = logging.WARNING,
) -> pd.DataFrame:
    """Return a table whose numeric columns are float64, without the rows that lack a needed number.

    Rows are left out with a sentence in the log. Other columns stay as they are.

    Args:
        needed: Columns in which each row needs a finite number.
        optional: Columns that become float64 where they exist, with NaN for what is no number.
        positive: Columns whose numbers have to be above 0.
        level: Of what is logged of rows that are left out.

    Raises:
        LmsatError: For a needed column that is missing, a number that has to be above 0 and is not, and no row left.
    """
    if missing := [name for name in needed if name not in table.columns]:
        raise lacking(missing[0], needed, table)
    present = [*needed, *(name for name in optional if name in table.columns)]
    columns = {name: as_floats(table[name]) for name in present}
    given, table = table, table.assign(**columns)
    known = np.isfinite(table[list(needed)].to_numpy("float64")).all(axis=1)
    rows_P = np.arange(1, len(table) + 1)
    if known.any() and not known.all():
        left_out, first = int((~known).sum()), rows_P[int(np.argmin(known))]
        logger.log(
            level,
            f"{left_out} of {len(table)} rows are left out, the first of them row {first}: "
            f"they have no finite number for {' and '.join(needed)}",
        )
    table, rows_P = table.iloc[np.flatnonzero(known)], rows_P[known]
    if table.empty:
        empty = [name for name in needed if not np.isfinite(columns[name]).any()] or list(needed)
        cell = given[empty[0]].iloc[0] if len(given) else None
        seen = f" (row 1 has '{shortened(cell)}')" if isinstance(cell, str) and cell.strip() else ""
        advice = "write numbers with a decimal point" if seen else "fill it in"
        raise LmsatError(f"no row has a finite number for {' and '.join(empty)}{seen}: {advice}")
    for name in positive:
        if name in present and (bad := table[name] <= 0).any():
            raise LmsatError(
                f"row {rows_P[int(np.argmax(bad))]} has {name}={table[name][bad].iloc[0]:g}, "
                "which must be above 0: correct it or leave the row out"
            )
    return table


def check_models(table: pd.DataFrame, needed: Sequence[str]) -> None:
    """Raise `LmsatError` for a table without the column ``model``, and for a row without a model."""
    if "model" not in table.columns:
        raise lacking("model", needed, table)
    if (nameless := table["model"].isna()).any():
        row = int(np.argmax(nameless.to_numpy())) + 1
        raise LmsatError(f"row {row} lacks a model: fill it in or leave the row out")


def check_steps(table: pd.DataFrame) -> None:
    """Raise `LmsatError` where the column ``step`` holds a number that is negative, not whole, or absurdly large."""
    if "step" not in table.columns:
        return
    steps = as_floats(table["step"])
    if (bad := steps.notna() & ((steps < 0) | (steps % 1 != 0))).any():
        row = int(np.argmax(bad.to_numpy()))
        raise LmsatError(
            f"row {row + 1} has step={steps.iloc[row]:g}, which is no step of a training: give whole numbers from 0 "
            "on, or leave the row out"
        )
    if (bad := steps > _MOST_STEPS).any():
        row = int(np.argmax(bad.to_numpy()))
        raise LmsatError(
            f"row {row + 1} has step={steps.iloc[row]:g}, which no training has: correct it or leave the row out"
        )


def check_magnitudes(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise `LmsatError` for a number above 0 that is too small or too large to be a loss, a size or a compute."""
    for name in names:
        values = table[name].to_numpy("float64")
        if (bad := ~((values >= _LEAST) & (values <= _MOST))).any():
            row = int(np.argmax(bad))
            raise LmsatError(
                f"row {row + 1} has {name}={values[row]:g}, which no training has: correct it or leave the row out"
            )

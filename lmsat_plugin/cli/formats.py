"""Answers in formats for other programs: CSV, JSON, Markdown, LaTeX and Parquet."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.markdown import markdown_table
from lmsat_plugin.outside_text import as_csv, printable
from lmsat_plugin.results.framed import flat

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "json", "md", "latex", "parquet")
BINARY = ("parquet",)
"""What a terminal cannot show."""
_LATEX = str.maketrans({"±": "$\\pm$", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}"})
"""What pandas' escaping leaves, and LaTeX's default encoding prints as another letter."""


def table_of(answer: Answer) -> pd.DataFrame:
    """Return an answer as one table: a row for each entry of its data, or else the rows of its tables for people.

    What entries hold in lists is JSON; what they hold in mappings has columns of its own, named ``key.key``.
    """
    import pandas as pd

    if isinstance(answer.data, list) and all(isinstance(entry, Mapping) for entry in answer.data):
        return pd.DataFrame([_with_json(flat(entry)) for entry in answer.data]).convert_dtypes()
    return shown_table_of(answer)


def shown_table_of(answer: Answer) -> pd.DataFrame:
    """Return the rows of an answer's tables for people; of several, with the name of each in the column ``table``.

    An answer in sentences alone has its data as rows.
    """
    import pandas as pd

    tables = [part for part in answer.parts if isinstance(part, TextTable)]
    if not tables and isinstance(answer.data, list):
        return table_of(answer)
    rows = [
        {**({"table": table.title} if len(tables) > 1 else {}), **dict(zip(table.columns, row, strict=True))}
        for table in tables
        for row in table.rows
    ]
    return pd.DataFrame(rows, columns=None if rows or not tables else list(tables[0].columns)).convert_dtypes()


def _with_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: json.dumps(cell) if isinstance(cell, list | tuple) else cell for key, cell in row.items()}


def write_table(table: pd.DataFrame, form: str, *, raw: bool = False, shown: pd.DataFrame | None = None) -> bytes:
    """Return the content of a file in one of `FORMATS`.

    Args:
        raw: Whether CSV leaves text as it is that a spreadsheet takes for a formula.
        shown: The table for people, as which it stands in Markdown and LaTeX.
    """
    if form == "csv":
        return as_csv(_with_text_dates(table), raw=raw).encode("utf-8")
    if form == "json":
        return as_json(table)
    if form == "parquet":
        return _as_parquet(table)
    shown = table if shown is None else shown
    columns = {str(name): [_text(cell) for cell in plain(column)] for name, column in shown.items()}
    return _as_markdown(columns) if form == "md" else _as_latex(columns)


def as_json(table: pd.DataFrame) -> bytes:
    """Return a list of rows, a row a line."""
    table = _with_text_dates(table)
    columns = [[_strict(cell) for cell in plain(table[name])] for name in table]
    lines = (json.dumps(dict(zip(table, row, strict=True))) for row in zip(*columns, strict=True))
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode("utf-8")


def _as_markdown(columns: Mapping[str, Sequence[str]]) -> bytes:
    return markdown_table(list(columns), zip(*columns.values(), strict=True)).encode("utf-8")


def _as_latex(columns: Mapping[str, Sequence[str]]) -> bytes:
    import pandas as pd

    cells = pd.DataFrame(
        {title: [printable(" ".join(cell.splitlines())) for cell in cells] for title, cells in columns.items()}
    )
    # pandas cuts off what is longer, without a word.
    with pd.option_context("styler.render.max_elements", cells.size + 1):
        latex = cells.to_latex(index=False, escape=True)
    return ("% \\usepackage{booktabs}\n" + latex.translate(_LATEX)).encode("utf-8")


def _as_parquet(table: pd.DataFrame) -> bytes:
    # A column without any text would have no type.
    texts = {name: "string" for name in table.columns if table[name].dtype == object}
    buffer = io.BytesIO()
    table.astype(texts).to_parquet(buffer, index=False)
    return buffer.getvalue()


def plain(column: pd.Series) -> list[Any]:
    """Return a column's values as Python's own types, None for unknown values."""
    return column.astype(object).where(column.notna(), None).tolist()


def _text(cell: Any) -> str:
    return "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _strict(cell: Any) -> Any:
    """Return None for infinity, which JSON does not know."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _with_text_dates(table: pd.DataFrame) -> pd.DataFrame:
    if "date" not in table:
        return table
    texts = {date: date.isoformat() for date in table["date"].dropna().unique()}
    return table.assign(date=table["date"].map(texts))

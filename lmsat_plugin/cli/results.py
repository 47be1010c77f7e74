"""``lmsat results``: the values in a tree of result files, as one table in any of six formats."""

from __future__ import annotations

import argparse
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_tree, chosen_rows
from lmsat_plugin.cli.command import Answer, FormattingCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.markdown import markdown_table
from lmsat_plugin.outside_text import as_csv, printable

if TYPE_CHECKING:
    import pandas as pd

_TITLES = {
    **{"model": "model", "variant": "variant", "step": "step", "corpus": "corpus", "task": "task"},
    **{"num_fewshot": "n-shot", "metric": "metric", "filter": "filter", "value": "value", "stderr": "±"},
}
"""The columns for people, and their titles."""
_SHOWN_IF_DIFFERENT = ("variant", "corpus", "filter")
_LATEX = str.maketrans({"±": "$\\pm$", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}"})
"""What pandas' escaping leaves, and LaTeX's default encoding prints as another letter."""


class ResultsCommand(FormattingCommand):
    """Print the values in result files of any lm-eval, or of another tool, the newest of each, one a row."""

    name = "results"
    help = "the results in a folder, as one table"
    examples = (
        "lmsat results results/ --wide",
        "lmsat results results/ --task 'lmsat_*' --metric loss --format csv --output losses.csv",
    )
    formats = ("csv", "json", "md", "latex", "parquet")
    binary_formats = ("parquet",)

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the folder, and which values to keep."""
        add_tree(parser)
        parser.add_argument("--wide", action="store_true", help="a row a checkpoint, with a column a metric")
        parser.add_argument("--all", action="store_true", help="keep older measurements of the same value, too")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the table."""
        from lmsat_plugin.results.tree import load_results
        from lmsat_plugin.results.wide import wide_table

        if args.wide and args.all:
            raise LmsatError("--wide shows one value of each metric, and --all several: leave one of them out")
        table = load_results(
            args.data, all_results=args.all, step_pattern=args.step_pattern, tokens_per_step=args.tokens_per_step
        )
        table = chosen_rows(table, args)
        if args.wide:
            table = wide_table(table)
        return Answer(data=table, parts=_parts(table, "checkpoints" if args.wide else "results"))

    def write(self, data: pd.DataFrame, form: str, *, raw: bool = False) -> bytes:
        """Return the content of a file in one of the formats."""
        if form == "csv":
            return as_csv(_with_text_dates(data), raw=raw).encode("utf-8")
        return {"json": _as_json, "md": _as_markdown, "latex": _as_latex, "parquet": _as_parquet}[form](data)


def _parts(table: pd.DataFrame, rows: str) -> Iterator[TextTable]:
    columns = {title: [_whole(cell) for cell in cells] for title, cells in _columns(table).items()}
    yield TextTable.of_columns(f"{len(table):,} {rows}", columns)


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns for people. The revision stands for an unknown step; some are shown only if they differ."""
    if "metric" not in table:
        return _wide_columns(table)
    shown = table.assign(step=table.step.astype(object).where(table.step.notna(), table.revision))
    return {
        title: _plain(shown[name])
        for name, title in _TITLES.items()
        if name not in _SHOWN_IF_DIFFERENT or table[name].nunique(dropna=False) > 1
    }


def _wide_columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns of a wide table in which something stands. The task is named where metrics share a name."""
    shown = table.dropna(axis="columns", how="all")
    shorter = {name: name.partition("/")[2] or name for name in map(str, shown)}
    count = Counter(shorter.values())
    return {short if count[short] == 1 else name: _plain(shown[name]) for name, short in shorter.items()}


def _whole(cell: Any) -> Any:
    """Return a whole number without decimals."""
    whole = isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15
    return int(cell) if whole else cell


def _texts(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns for people as text of six digits."""
    return {title: [_text(cell) for cell in cells] for title, cells in _columns(table).items()}


def _text(cell: Any) -> str:
    return "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _as_json(table: pd.DataFrame) -> bytes:
    table = _with_text_dates(table)
    columns = [[_strict(cell) for cell in _plain(table[name])] for name in table]
    lines = (json.dumps(dict(zip(table, row, strict=True))) for row in zip(*columns, strict=True))
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode("utf-8")


def _as_markdown(table: pd.DataFrame) -> bytes:
    columns = _texts(table)
    return markdown_table(list(columns), zip(*columns.values(), strict=True)).encode("utf-8")


def _as_latex(table: pd.DataFrame) -> bytes:
    import pandas as pd

    texts = {
        title: [printable(" ".join(cell.splitlines())) for cell in cells] for title, cells in _texts(table).items()
    }
    cells = pd.DataFrame(texts)
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


def _plain(column: pd.Series) -> list[Any]:
    """Return a column's values as Python's own types, None for unknown values."""
    return column.astype(object).where(column.notna(), None).tolist()


def _strict(cell: Any) -> Any:
    """Return None for infinity, which JSON does not know."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _with_text_dates(table: pd.DataFrame) -> pd.DataFrame:
    if "date" not in table:
        return table
    texts = {date: date.isoformat() for date in table["date"].dropna().unique()}
    return table.assign(date=table["date"].map(texts))

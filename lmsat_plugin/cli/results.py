"""``lmsat results``: the values in a tree of result files, as one table in any of six formats."""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_folder, add_steps
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
        "lmsat results results/",
        "lmsat results results/ --task 'lmsat_*' --metric loss --format csv --output losses.csv",
    )
    formats = ("csv", "json", "md", "latex", "parquet")
    binary_formats = ("parquet",)

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the folder, and which values to keep."""
        add_folder(parser)
        for column in ("task", "metric", "model"):
            parser.add_argument(f"--{column}", metavar="GLOB", help=f"keep the {column}s of this pattern")
        parser.add_argument("--all", action="store_true", help="keep older measurements of the same value, too")
        add_steps(parser)

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the table."""
        from lmsat_plugin.results.tree import load_results

        table = load_results(
            args.folder, all_results=args.all, step_pattern=args.step_pattern, tokens_per_step=args.tokens_per_step
        )
        for column in ("task", "metric", "model"):
            table = _keep(table, column, getattr(args, column))
        return Answer(data=table, parts=_parts(table))

    def write(self, data: pd.DataFrame, form: str, *, raw: bool = False) -> bytes:
        """Return the content of a file in one of the formats."""
        if form == "csv":
            return as_csv(_with_text_dates(data), raw=raw).encode("utf-8")
        return {"json": _as_json, "md": _as_markdown, "latex": _as_latex, "parquet": _as_parquet}[form](data)


def _keep(table: pd.DataFrame, column: str, pattern: str | None) -> pd.DataFrame:
    if pattern is None:
        return table
    names = table[column].unique()
    kept = table[table[column].isin([name for name in names if fnmatchcase(name, pattern)])]
    if kept.empty:
        shown = ", ".join(" ".join(name.split()) for name in names[:10])
        more = ", ..." if len(names) > 10 else ""
        raise LmsatError(f"no result has --{column}={pattern}: give one of {shown}{more}")
    return kept


def _parts(table: pd.DataFrame) -> Iterator[TextTable]:
    columns = {title: [_whole(cell) for cell in cells] for title, cells in _columns(table).items()}
    yield TextTable.of_columns(f"{len(table):,} results", columns)


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns for people. The revision stands for an unknown step; some are shown only if they differ."""
    shown = table.assign(step=table.step.astype(object).where(table.step.notna(), table.revision))
    return {
        title: _plain(shown[name])
        for name, title in _TITLES.items()
        if name not in _SHOWN_IF_DIFFERENT or table[name].nunique(dropna=False) > 1
    }


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
    texts = {date: date.isoformat() for date in table["date"].dropna().unique()}
    return table.assign(date=table["date"].map(texts))

"""``lmsat results``: the values in a tree of result files, as one table."""

from __future__ import annotations

import io
import json
import math
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_steps
from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.tables import print_table
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import write_atomically
from lmsat_plugin.markdown import markdown_table

if TYPE_CHECKING:
    import argparse

    import pandas as pd

_FORMATS = ("table", "csv", "json", "md", "latex", "parquet")
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
        **{
            "±": "$\\pm$",
            "<": "\\textless{}",
            ">": "\\textgreater{}",
            "|": "\\textbar{}",
            "\n": " ",
            "\r": " ",
        },
    }
)


class ResultsCommand(Command):
    """Print the values in lm-eval's result files of any version, the newest of each, one a row."""

    name = "results"
    help = "the results in a folder, as one table"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the folder, the format, and what to keep."""
        parser.add_argument("folder", metavar="DIR", help="a folder with result files, or one file")
        parser.add_argument(
            "--format", choices=_FORMATS, default="table", help="how the table is written (default: table)"
        )
        parser.add_argument("--output", type=Path, metavar="FILE", help="write to a file")
        for column in ("task", "metric", "model"):
            parser.add_argument(f"--{column}", metavar="GLOB", help=f"keep the {column}s of this pattern")
        parser.add_argument(
            "--all", action="store_true", help="keep older measurements of the same value, too"
        )
        add_steps(parser)

    def run(self, args: argparse.Namespace) -> None:
        """Print or write the table."""
        from lmsat_plugin.results.tree import load_results

        if args.format == "parquet" and args.output is None:
            raise LmsatError("--format parquet is not for a terminal: name a file with --output FILE")
        if args.format == "table" and args.output is not None:
            raise LmsatError(f"--output {args.output} takes no table for people: add --format csv or another")
        table = load_results(
            args.folder,
            all_results=args.all,
            step_pattern=args.step_pattern,
            tokens_per_step=args.tokens_per_step,
        )
        for column in ("task", "metric", "model"):
            table = _keep(table, column, getattr(args, column))
        if args.format == "parquet":
            write_atomically(args.output, _parquet(table))
        elif args.output is not None:
            write_atomically(args.output, _text(table, args.format).encode("utf-8"))
        else:
            _print(table, args.format)


def _keep(table: pd.DataFrame, column: str, pattern: str | None) -> pd.DataFrame:
    if pattern is None:
        return table
    names = table[column].unique()
    kept = table[table[column].isin([name for name in names if fnmatchcase(name, pattern)])]
    if kept.empty:
        shown = ", ".join(" ".join(name.split()) for name in names[:10]) + (
            ", ..." if len(names) > 10 else ""
        )
        raise LmsatError(f"no result has --{column}={pattern}: give one of {shown}")
    return kept


def _print(table: pd.DataFrame, format_: str) -> None:
    if format_ == "table":
        _print_table(table)
    else:
        sys.stdout.write(_text(table, format_))


def _print_table(table: pd.DataFrame) -> None:
    columns, rows = _for_people(table)
    print_table(f"{len(rows):,} results", columns, [[_short(cell) for cell in row] for row in rows])


def _for_people(table: pd.DataFrame) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns that tell values apart, and their rows; the revision stands for an unknown step."""
    columns = {
        "model": "model",
        "variant": "variant",
        "step": "step",
        "corpus": "corpus",
        "task": "task",
        "num_fewshot": "n-shot",
    }
    columns |= {"metric": "metric", "filter": "filter", "value": "value", "stderr": "±"}
    for name in ("variant", "corpus", "filter"):
        if table[name].nunique(dropna=False) == 1:
            del columns[name]
    shown = table.assign(step=table.step.astype(object).where(table.step.notna(), table.revision))
    return list(columns.values()), list(zip(*(_plain(shown[name]) for name in columns), strict=True))


def _short(cell: Any) -> Any:
    """Return a cell for people: nothing for what is unknown, a count without decimals."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return int(cell)
    return "" if cell is None else cell


def _text(table: pd.DataFrame, format_: str) -> str:
    if format_ == "table":
        raise LmsatError(
            "a table is for the terminal: give --format csv, json, md, latex or parquet for a file"
        )
    if format_ == "csv":
        return _with_text_dates(table).to_csv(index=False, lineterminator="\n")
    if format_ == "json":
        return _json(table)
    columns, rows = _for_people(table)
    return (markdown_table if format_ == "md" else _latex)(
        columns, [[_cell(cell) for cell in row] for row in rows]
    )


def _json(table: pd.DataFrame) -> str:
    table = _with_text_dates(table)
    columns = [[_strict(cell) for cell in _plain(table[name])] for name in table]
    lines = (json.dumps(dict(zip(table, row, strict=True))) for row in zip(*columns, strict=True))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _latex(columns: list[str], rows: list[list[str]]) -> str:
    lines = [" & ".join(cell.translate(_LATEX) for cell in row) + " \\\\\n" for row in (columns, *rows)]
    return (
        f"% \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{'l' * len(columns)}}}\n\\toprule\n{lines[0]}\\midrule\n"
        + "".join(lines[1:])
        + "\\bottomrule\n\\end{tabular}\n"
    )


def _parquet(table: pd.DataFrame) -> bytes:
    # A column without any text would have no type.
    texts = {name: "string" for name in table.columns if table[name].dtype == object}
    buffer = io.BytesIO()
    table.astype(texts).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _plain(column: pd.Series) -> list[Any]:
    """Return a column's values as Python's own; None for what is unknown."""
    return column.astype(object).where(column.notna(), None).tolist()


def _strict(cell: Any) -> Any:
    """Return a value that JSON knows: it has no infinity."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _cell(cell: Any) -> str:
    return "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _with_text_dates(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(date=table["date"].map(lambda date: date.isoformat(), na_action="ignore"))

"""A leaderboard as Markdown, CSV, JSON, or a page of HTML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2

from lmsat_plugin.markdown import as_text, markdown_table
from lmsat_plugin.outside_text import as_csv_cell, printable
from lmsat_plugin.ranking.columns import Column
from lmsat_plugin.ranking.leaderboard import Leaderboard


def cells(board: Leaderboard, row: dict[str, Any]) -> Iterator[str]:
    """Yield a row's cells for people: rounded, with their standard errors; empty where unknown."""
    for column in board.columns:
        value, stderr = row[column.name], row.get(f"{column.name}_stderr")
        mark = "~" if row.get(f"{column.name}_from_name") else ""
        yield mark + (_short(value) if stderr is None else _with_error(value, stderr))


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _with_error(value: float, stderr: float) -> str:
    """Return a number and its error, both to the error's second digit."""
    error = f"{stderr:.1e}"
    decimals = min(6, max(0, 1 - int(error.partition("e")[2]))) if stderr > 0 else 4
    return f"{value:.{decimals}f} ± {stderr:.{decimals}f}"


def as_markdown(board: Leaderboard) -> str:
    """Return a table in GitHub's Markdown, and the notes below it."""
    table = markdown_table(
        [column.title_with_unit for column in board.columns],
        (cells(board, row) for row in board.rows),
        [index for index, column in enumerate(board.columns) if _is_numeric(board, column)],
    )
    return f"{table}\n" + "".join(f"- {as_text(note)}\n" for note in board.notes)


def as_csv(board: Leaderboard, *, raw: bool = False) -> str:
    """Return the unrounded values, one model a line, standard errors in columns of their own.

    Text cells are harmless to spreadsheets unless ``raw``.
    """

    def plain(cell: Any) -> Any:
        return as_csv_cell(cell) if isinstance(cell, str) and not raw else cell

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(plain, board.rows[0]))
    writer.writerows(map(plain, row.values()) for row in board.rows)
    return text.getvalue()


def as_json(board: Leaderboard) -> str:
    """Return ``ranked_by, columns, rows, notes``, with null for unknown values."""
    return json.dumps(board.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def page_template(
    package: str, name: str, filters: Mapping[str, Callable[[str], str]] | None = None
) -> jinja2.Template:
    """Return the template of a page in a package's folder ``templates``; ``filters`` are its own."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.undefined = jinja2.StrictUndefined
    environment.filters |= filters or {}
    # The type tells what is HTML already.
    environment.finalize = lambda cell: type(cell)(printable(cell, keep="\r\n\t")) if isinstance(cell, str) else cell
    return environment.get_template(name)


def as_html(board: Leaderboard) -> str:
    """Return a page that needs no other file and no network, in light or dark as the reader's system is."""
    return page_template("lmsat_plugin.ranking", "leaderboard.html").render(
        columns=board.columns,
        numeric=[_is_numeric(board, column) for column in board.columns],
        rows=[(row, list(cells(board, row))) for row in board.rows],
        notes=board.notes,
    )


def _is_numeric(board: Leaderboard, column: Column) -> bool:
    return not any(isinstance(row[column.name], str) for row in board.rows)


FORMATS: dict[str, Callable[[Leaderboard], str]] = {"md": as_markdown, "csv": as_csv, "html": as_html, "json": as_json}
"""The function that writes each format."""

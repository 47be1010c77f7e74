"""A leaderboard as Markdown, CSV, JSON, or a page of HTML. Imports neither lm_eval, torch nor matplotlib."""

from __future__ import annotations

import csv
import io
import json
from html import escape
from typing import TYPE_CHECKING, Any

from lmsat_plugin.markdown import as_text, markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lmsat_plugin.report.leaderboard import Column, Leaderboard

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#dddddd, #444444); --best: light-dark(#004488, #88ccee); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: 1.3rem; font-weight: 600; padding-bottom: .5rem; }
th, td { padding: .35rem .7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.number, th.number { text-align: right; }
tr.first { color: var(--best); font-weight: 600; }
.unit { display: block; font-weight: 400; opacity: .75; }
footer { max-width: 50rem; margin-top: 1rem; }
@media print { body { max-width: none; margin: 0; } .wide { overflow: visible; } }
"""


def cells(board: Leaderboard, row: dict[str, Any]) -> Iterator[str]:
    """Yield a row's cells for people: with their standard errors, empty for what is unknown."""
    for column in board.columns:
        value, stderr = row[column.name], row.get(f"{column.name}_stderr")
        yield _short(value) if stderr is None else _with_error(value, stderr)


def _short(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def _with_error(value: float, stderr: float) -> str:
    """Return a number to the second digit of its error."""
    error = f"{stderr:.1e}"
    decimals = min(6, max(0, 1 - int(error.partition("e")[2]))) if stderr > 0 else 4
    return f"{value:.{decimals}f} ± {stderr:.{decimals}f}"


def title(column: Column) -> str:
    """Return a column's title with its unit."""
    return f"{column.title} ({column.unit})" if column.unit else column.title


def markdown(board: Leaderboard) -> str:
    """Return a table in GitHub's Markdown, the notes below it."""
    table = markdown_table(
        [title(column) for column in board.columns],
        (cells(board, row) for row in board.rows),
        [index for index, column in enumerate(board.columns) if _is_numeric(board, column)],
    )
    return f"{table}\n" + "".join(f"- {as_text(note)}\n" for note in board.notes)


def as_csv(board: Leaderboard) -> str:
    """Return the values as they are, one model a line, standard errors in columns of their own."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(board.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(board.rows)
    return text.getvalue()


def as_json(board: Leaderboard) -> str:
    """Return all that is known, with null for what is not."""
    return json.dumps(board.facts(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def html(board: Leaderboard) -> str:
    """Return a page that needs no other file and no network, for light and dark."""
    numeric = [_is_numeric(board, column) for column in board.columns]
    head = "".join(
        f'<th scope="col"{_number(number)} title="{escape(column.about)}">{escape(column.title)}'
        f'<span class="unit">{escape(column.unit)}{_arrow(column)}</span></th>'
        for column, number in zip(board.columns, numeric, strict=True)
    )
    body = "".join(_html_row(board, row, numeric) for row in board.rows)
    notes = "".join(f"<p>{escape(note)}</p>" for note in board.notes)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Leaderboard</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<div class="wide" tabindex="0"><table>\n<caption>Leaderboard</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>\n<footer>{notes}</footer>\n</body>\n</html>\n"
    )


def _html_row(board: Leaderboard, row: dict[str, Any], numeric: list[bool]) -> str:
    made = []
    for column, cell, number in zip(board.columns, cells(board, row), numeric, strict=True):
        if column.name == "model":
            made.append(f'<th scope="row">{escape(cell)}</th>')
        else:
            made.append(f"<td{_number(number)}>{escape(cell)}</td>")
    first = ' class="first"' if row.get("place") == 1 and len(board.rows) > 1 else ""
    return f"<tr{first}>{''.join(made)}</tr>\n"


def _is_numeric(board: Leaderboard, column: Column) -> bool:
    return not any(isinstance(row[column.name], str) for row in board.rows)


def _number(number: bool) -> str:
    return ' class="number"' if number else ""


def _arrow(column: Column) -> str:
    return {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]


FORMATS: dict[str, Callable[[Leaderboard], str]] = {
    "md": markdown,
    "csv": as_csv,
    "html": html,
    "json": as_json,
}
"""What writes each format."""

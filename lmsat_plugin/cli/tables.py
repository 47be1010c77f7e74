"""Tables for people: in a terminal no wider than it, in several parts if need be; in a file as wide as they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lmsat_plugin.outside_text import printable, show

_BESIDE = 3
"""Letters between two columns."""
_SHORT = 40
"""Rows up to which a table may come in parts."""
_LONGEST = 2000
"""Rows above which a table is not fitted to the terminal."""
_LONG = 30
"""Letters of text above which it may be wrapped."""


class TextTable(NamedTuple):
    """A table for people. A cell without a value is None."""

    title: str
    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]

    @classmethod
    def of_columns(cls, title: str, columns: Mapping[str, Sequence[Any]]) -> TextTable:
        """Return the table of these columns."""
        return cls(title, list(columns), list(zip(*columns.values(), strict=True)))


def three_decimals(value: float | None) -> str | None:
    """Return a cell with a score or a loss."""
    return None if value is None else f"{value:.3f}"


def signed_percent(value: float | None) -> str | None:
    """Return a cell with a relative error, in percent."""
    return None if value is None else f"{100 * value:+.1f}"


def print_parts(parts: Iterable[TextTable | str]) -> None:
    """Print tables and sentences in order, each as soon as it is there."""
    for part in parts:
        show(part) if isinstance(part, str) else print_table(*part)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table, with columns of numbers aligned to the right.

    Columns that do not fit beside each other come in parts below each other, and each part repeats the first column of
    text. In a long table, text is wrapped instead.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    title, columns = printable(title), [printable(column) for column in columns]
    rows = [list(row) for row in rows]
    numeric = [bool(rows) and all(isinstance(row[index], int | float) for row in rows) for index in range(len(columns))]
    texts = [[_text(cell) for cell in row] for row in rows]
    longest = [max((len(row[index]) for row in texts), default=0) for index in range(len(columns))]
    console = Console()
    most = _LONG if console.is_terminal else max(longest, default=0)
    widths = [max(min(cell, most), len(head)) + _BESIDE for cell, head in zip(longest, columns, strict=True)]
    if not console.is_terminal:
        console = Console(width=max(len(title), sum(widths) + 1))
    if len(rows) > _LONGEST:
        _print_plain(title, columns, texts, numeric)
        return
    first = numeric.index(False) if False in numeric else 0
    is_short = len(rows) <= _SHORT
    parts = in_parts(widths, first, console.width - 1) if is_short else [list(range(len(columns)))]
    for number, part in enumerate(parts):
        heading = None if number else escape(title)
        table = Table(title=heading, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
        for index in part:
            table.add_column(
                Text(columns[index]),
                justify="right" if numeric[index] else "left",
                no_wrap=numeric[index] or (is_short and longest[index] <= _LONG),
                overflow="fold",
            )
        for row in texts:
            table.add_row(*(Text(row[index]) for index in part))
        console.print(table)


def _print_plain(title: str, columns: Sequence[str], texts: Iterable[Sequence[str]], numeric: Sequence[bool]) -> None:
    """Print a table of any length, as wide as it is."""
    rows = list(texts)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    line = "   ".join(f"{{:{'>' if right else '<'}{width}}}" for right, width in zip(numeric, widths, strict=True))
    print(title, line.format(*columns), line.format(*("-" * width for width in widths)), sep="\n")
    print("\n".join(line.format(*row) for row in rows), flush=True)


def in_parts(widths: Sequence[int], first: int, room: int) -> list[list[int]]:
    """Return the columns of each part of a table: as many as have room, in order, and ``first`` in all parts."""
    parts: list[list[int]] = [[]]
    for index in range(len(widths)):
        if index == first:
            continue
        taken = widths[first] + sum(widths[other] for other in parts[-1])
        if parts[-1] and taken + widths[index] > room:
            parts.append([])
        parts[-1].append(index)
    return [sorted([first, *part]) for part in parts]


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else printable(str(cell))

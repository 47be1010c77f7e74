"""Tables in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

_MARKUP = str.maketrans(
    {**{mark: f"\\{mark}" for mark in "\\|[]*`~#"}, "<": "&lt;", "&": "&amp;", "\n": " ", "\r": " "}
)


def as_text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return text.translate(_MARKUP)


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[str]], numeric: Collection[int] = ()) -> str:
    """Return a table; the columns of these indices are aligned to the right."""
    lines = [
        columns,
        ["---:" if index in numeric else "---" for index in range(len(columns))],
        *([as_text(cell) for cell in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

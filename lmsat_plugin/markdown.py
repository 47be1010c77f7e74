"""Tables in GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from lmsat_plugin.outside_text import printable

_MARKUP = str.maketrans(
    {**{mark: f"\\{mark}" for mark in "\\|[]*`~#"}, "<": "&lt;", "&": "&amp;", "\n": " ", "\r": " "}
)
# What GitHub makes a link of: addresses, with `@` also those of mail and the names of users.
_ADDRESS = re.compile(r"(?<=[A-Za-z])(?=://)|(?i:(?<=www))(?=\.)")
_AT = re.compile(r"@(?=\w)")
# Within a word, an underline is shown as it is.
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def as_text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line, without links."""
    text = printable(text, keep="\r\n").translate(_MARKUP)
    text = _EMPHASIS.sub(r"\\_", _ADDRESS.sub(r"\\", text))
    # An escaped @ is a link all the same.
    return _AT.sub("@<!-- -->", text)


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[str]], numeric: Collection[int] = ()) -> str:
    """Return a table; the columns of these indices are aligned to the right."""
    lines = [
        columns,
        ["---:" if index in numeric else "---" for index in range(len(columns))],
        *([as_text(cell) for cell in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

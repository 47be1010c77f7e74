"""Which names of a column patterns choose, as ``--model 'pythia-*'`` does; a name itself chooses itself alone."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.training_order import natural

if TYPE_CHECKING:
    import pandas as pd

_MOST_NAMED = 10


def matching(names: Iterable[str | None], column: str, patterns: Sequence[str]) -> list[str]:
    """Return the names that patterns choose, in the order of the patterns, those of one pattern in their natural order.

    Raises `LmsatError` for a pattern that chooses none. ``column`` is the option's name.
    """
    known = sorted({name for name in names if name is not None}, key=natural)
    if not known:
        raise LmsatError(f"no result states a {column}: leave out --{column}")
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [pattern] if pattern in known else fnmatch.filter(known, pattern)
        if not found:
            shown = ", ".join(" ".join(name.split()) for name in known[:_MOST_NAMED])
            more = ", ..." if len(known) > _MOST_NAMED else ""
            raise LmsatError(f"no result has --{column} {pattern}: give some of {shown}{more}")
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def rows_matching(table: pd.DataFrame, column: str, patterns: Sequence[str]) -> pd.DataFrame:
    """Return the rows whose name in a column patterns choose. Raises `LmsatError` as `matching`."""
    if column not in table.columns:
        raise LmsatError(f"the table has no column {column}: leave out --{column}")
    names = table[column].convert_dtypes().map(str, na_action="ignore")
    return table[names.isin(matching(names.dropna(), column, patterns))]

"""Tables of results, CSV or Parquet, that are published with a layout of their own: which one, and its rows."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.files import check_file, read_file
from lmsat_plugin.results.other_tools import datadecide, olmo_ladder, open_llm_leaderboard
from lmsat_plugin.results.other_tools.documents import Document

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")
_LAYOUTS = (datadecide, olmo_ladder, open_llm_leaderboard)
"""Each has ``is_layout(columns)``, whether a table has it, and ``read(rows, path)``, what its rows hold.

Where there are columns that it does not need, ``READ`` names those that it does.
"""
_LONGEST_HEADER = 1 << 20
_PIECE = 10_000
"""Rows of a Parquet file that are in memory at once."""


def may_hold_results(path: Path) -> bool:
    """Return whether a CSV or Parquet file has a layout that `read_table` knows, or cannot be read."""
    try:
        return _layout_of(path) is not None
    except (OSError, ValueError):
        return True


def is_log(path: Path) -> bool:
    """Return whether a file holds results in a layout that is no table of an analysis by itself."""
    try:
        return "model" not in _columns(path) and _layout_of(path) is not None
    except (OSError, ValueError):
        return False


def read_table(path: Path) -> list[Document] | None:
    """Return what a table holds, a document for each checkpoint; None for a table of another layout.

    Raises OSError or ValueError for a file that cannot be read.
    """
    layout = _layout_of(path)
    if layout is None:
        return None
    return list(layout.read(_rows(path, getattr(layout, "READ", None)), path))


def _layout_of(path: Path) -> Any:
    columns = _columns(path)
    return next((layout for layout in _LAYOUTS if layout.is_layout(columns)), None)


def _columns(path: Path) -> set[str]:
    check_file(path)
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return set(pq.read_schema(path).names)
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error
    with path.open("rb") as file:
        first = file.readline(_LONGEST_HEADER).decode("utf-8-sig", "replace")
    return {name.strip().strip('"').strip() for name in first.split(",")}


def _rows(path: Path, needed: Collection[str] | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table piece by piece, of the needed columns alone, by default of all."""
    for table in _pieces(path, needed):
        table.columns = [str(name).strip() for name in table.columns]
        yield from _rows_of(table if needed is None else table[[name for name in table.columns if name in needed]])


def _pieces(path: Path, needed: Collection[str] | None) -> Iterator[pd.DataFrame]:
    if path.suffix.lower() != ".parquet":
        yield _read_csv(path)
        return
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if needed is None or name.strip() in needed]
        for batch in file.iter_batches(_PIECE, columns=names):
            yield batch.to_pandas()


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    # What pandas takes for a missing value by default is none but an empty cell and what says so.
    text = io.BytesIO(read_file(path))
    table = pd.read_csv(text, encoding="utf-8-sig", float_precision="round_trip", low_memory=False)
    if len(table.columns) and not isinstance(table.index, pd.RangeIndex):
        raise ValueError("its rows have more cells than its first line")
    return table


def _rows_of(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows, with Python's own values and None for what is missing."""
    names = list(table.columns)
    columns = [table[name].astype(object).where(table[name].notna(), None).tolist() for name in names]
    for cells in zip(*columns, strict=True):
        yield dict(zip(names, cells, strict=True))

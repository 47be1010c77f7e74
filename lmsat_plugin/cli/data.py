"""What analyses are given on the command line: a tree of results, or a CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def read_data(data: str) -> pd.DataFrame:
    """Return a tidy table of results from a folder or a result file, or the rows of a ``.csv`` file.

    Raises `LmsatError` for what is neither.
    """
    path = Path(data).expanduser()
    if path.suffix.lower() == ".csv":
        from lmsat_plugin.analysis.tables import read_csv

        return read_csv(path)
    from lmsat_plugin.harness.results import load_results

    return load_results(path)

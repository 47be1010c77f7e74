"""The models that a prediction is fitted to, and those that it predicts, by their names or sizes.

Shapes: P rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import pandas as pd

_NAMES = ("size", "group", "model")
"""The columns that name a row's models, those of several models first; ``group`` is the name that replicates share."""
_MOST_LISTED = 12


def are_named(rows: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Return which rows are of models, replicates' models or sizes with these names, shape [P]."""
    named_P = np.zeros(len(rows), dtype=bool)
    for column in _columns(rows):
        named_P |= rows[column].astype(str).isin(names).to_numpy()
    return named_P


def check_names(tables: Sequence[pd.DataFrame], fit_models: Sequence[str], predict_models: Sequence[str]) -> None:
    """Raise `LmsatError` for a name that no table has, and for a model that is both fitted and predicted."""
    for name in (*fit_models, *predict_models):
        if not any(are_named(table, [name]).any() for table in tables):
            known = [str(own) for table in tables for own in _values(table)]
            listed = ", ".join(list(dict.fromkeys(known))[:_MOST_LISTED])
            raise LmsatError(f"no model or size is called '{name}': give some of {listed}")
    for table in tables:
        if (both_P := are_named(table, fit_models) & are_named(table, predict_models)).any():
            raise LmsatError(f"{table['model'][both_P].iloc[0]} is both fitted and predicted: name it once")


def _columns(rows: pd.DataFrame) -> list[str]:
    return [name for name in _NAMES if name in rows.columns]


def _values(rows: pd.DataFrame) -> list[object]:
    return [value for name in _columns(rows) for value in rows[name].dropna().unique()]

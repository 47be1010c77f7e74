"""Tidy tables of results that were never measured, as load_results makes them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def table_of(rows: list[dict]) -> pd.DataFrame:
    """Return a tidy table as load_results makes it."""
    own = {"revision": "main", "num_fewshot": 0, "filter": "none", "stderr": np.nan, "corpus": None}
    table = pd.DataFrame([{**own, "path": row["model"], **row} for row in rows])
    for name in ("step", "tokens", "n_params", "hidden_size", "num_fewshot"):
        table[name] = pd.array(table[name].tolist() if name in table else [None] * len(table), dtype="Int64")
    return table


def loss_rows(model: str, loss: float, tokens: int = 1000, **more) -> list[dict]:
    own = {"model": model, "task": "lmsat_loss", "hidden_size": 64, **more}
    values = {"loss": loss, "bits_per_byte": loss * tokens / 4000 / np.log(2), "tokens": tokens, "bytes": 4000}
    return [
        {**own, "metric": name, "value": value, "stderr": 0.01 if name == "loss" else np.nan}
        for name, value in values.items()
    ]

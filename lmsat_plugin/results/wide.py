"""The table of results with a row a checkpoint and a column a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINT = ("model", "variant", "run", "stage", "revision", "step", "tokens", "words", "n_params")
"""The columns that say which checkpoint a row is about."""
_MEASUREMENT = ("task", "num_fewshot", "corpus", "metric", "filter")


def wide_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each checkpoint of a tidy table.

    The columns are `CHECKPOINT`, then the values, as ``task/metric``. Where one task and metric has values of several
    numbers of shots, texts or filters, these follow in brackets, as in ``lmsat_loss/loss (pile)``.
    """
    of_checkpoint = table.groupby(list(CHECKPOINT), dropna=False, sort=False).ngroup()
    measured = table[[*_MEASUREMENT]].astype(object).where(table[[*_MEASUREMENT]].notna(), "")
    names = _names(measured.drop_duplicates())
    cells = table[["value"]].assign(
        row=of_checkpoint, column=[names[key] for key in measured.itertuples(index=False, name=None)]
    )
    values = cells.drop_duplicates(["row", "column"], keep="last").pivot(index="row", columns="column", values="value")
    rows = table[[*CHECKPOINT]].assign(row=of_checkpoint).drop_duplicates("row").set_index("row")
    wide = rows.join(values[list(dict.fromkeys(names.values()))])
    models = {model: place for place, model in enumerate(dict.fromkeys(table.model))}
    return wide.sort_values(
        ["model", "variant", "run", "stage", "step", "tokens", "words"],
        key=lambda column: column.map(models) if column.name == "model" else column,
        kind="stable",
    ).reset_index(drop=True)


def _names(measured: pd.DataFrame) -> dict[tuple[object, ...], str]:
    """Return the name of the column of each task, number of shots, text, metric and filter."""
    names: dict[tuple[object, ...], str] = {}
    for (task, metric), several in measured.groupby(["task", "metric"], sort=False):
        differing = [name for name in ("corpus", "num_fewshot", "filter") if several[name].nunique() > 1]
        for key, row in zip(several.itertuples(index=False, name=None), several.to_dict(orient="records"), strict=True):
            parts = [f"{row[name]}-shot" if name == "num_fewshot" else str(row[name]) for name in differing]
            shown = ", ".join(part for part in parts if part)
            names[key] = f"{task}/{metric}" + (f" ({shown})" if shown else "")
    return names

"""The tables of a report: verdicts, final values, values by checkpoint, and where each comes from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from lmsat_plugin.analysis.saturation.metric_series import DEFAULT as LOSS
from lmsat_plugin.results.json_values import as_dict, as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.analysis.analyses import Analyses

CELLS = 45_000
"""How many cells of values by checkpoint a page holds: more would make it large."""
_SHORT = 12
"""Letters of a hash that are shown."""
_CHECKPOINT = ["model", "revision", "step", "tokens"]
_MEASURED = ["task", "num_fewshot", "metric", "filter"]
_SATURATION = {
    "model": "model",
    "variant": "variant",
    "verdict": "verdict",
    "p_value": "p",
    "best": "best",
    "best_step": "at step",
    "final": "final",
    "final_step": "final step",
    "onset_step": "onset",
    "onset_low": "earliest onset",
    "onset_high": "latest onset",
    "n_checkpoints": "checkpoints",
}
_EMERGENCE = {
    "task": "task",
    "metric": "metric",
    "variant": "variant",
    "emergent": "emergent",
    "threshold": "threshold",
    "low": "lowest threshold",
    "high": "highest threshold",
    "p_value": "p",
    "spearman": "Spearman",
    "chance": "chance",
    "n_points": "checkpoints",
    "n_models": "models",
}
_FINAL = {
    **{"model": "model", "step": "step", "tokens": "tokens", "task": "task", "num_fewshot": "n-shot"},
    **{"metric": "metric", "filter": "filter", "value": "value", "stderr": "±", "n_samples": "samples"},
    "number": "file",
}


class Link(NamedTuple):
    """A cell that leads to a file."""

    text: str
    href: str


@dataclass(frozen=True)
class Table:
    """A table that a page shows and a CSV file holds."""

    name: str
    """The file's stem."""
    title: str
    about: str
    columns: list[str]
    numeric: list[int]
    """Columns of numbers, counted from 1 as CSS does."""
    rows: list[list[str | Link]]
    csv: str


def tables_of(analyses: Analyses, folder: Path) -> list[Table]:
    """Return the tables of a report in a folder, to which links to the result files are relative."""
    sources = _sources(analyses)
    numbers = dict(zip(sources.file, sources["#"], strict=True))
    values = analyses.table.assign(number=analyses.table.path.map(numbers))
    tables = []
    for name, title, about, found, names in (
        (
            "saturation",
            "Verdicts on saturation",
            "Steps are training steps.",
            analyses.saturation,
            _SATURATION,
        ),
        ("emergence", "Verdicts on emergence", "Thresholds are losses.", analyses.emergence, _EMERGENCE),
    ):
        if found:
            verdicts = pd.DataFrame([{key: one.to_dict()[key] for key in names} for one in found])
            tables.append(_table(name, title, about, verdicts.rename(columns=names)))
    return [
        *tables,
        _final(values),
        _by_checkpoint(values, analyses.table),
        _provenance(sources, folder, analyses),
    ]


def _final(values: pd.DataFrame) -> Table:
    order = values.sort_values(["step", "date"], na_position="first", kind="stable")
    last = order.drop_duplicates(["model", "corpus", *_MEASURED], keep="last").sort_index()
    alike = [name for name in ("num_fewshot", "filter") if last[name].nunique(dropna=False) == 1]
    return _table(
        "final",
        "Final values",
        "Each value at its model's last checkpoint that has it, in the unit of its task; ± is one standard error, "
        "file the number of the result file in the table of sources.",
        last[list(_FINAL)].drop(columns=alike).rename(columns=_FINAL),
    )


def _by_checkpoint(values: pd.DataFrame, tidy: pd.DataFrame) -> Table:
    """Return a row for each checkpoint and a column for each value, as many columns as a page can hold."""
    texts = values.value.map("{:.5g}".format)
    known = values.stderr.notna()
    texts[known] += " ± " + values.stderr[known].map("{:.2g}".format).astype(str)
    headings = values.task + " " + values.metric
    for column, suffix in (("num_fewshot", "-shot"), ("filter", "")):
        if values.groupby(["task", "metric"])[column].nunique().gt(1).any():
            headings += " " + values[column].astype(str) + suffix
    long = values[_CHECKPOINT].assign(heading=headings, text=texts)
    long["checkpoint"] = values.groupby(_CHECKPOINT, dropna=False, sort=False).ngroup()
    # Results that differ in no column here, such as in their commit, are the same checkpoint's: the last stands.
    wide = long.drop_duplicates(["checkpoint", "heading"], keep="last").pivot(
        index="checkpoint", columns="heading", values="text"
    )
    first = long.drop_duplicates("checkpoint").set_index("checkpoint")[_CHECKPOINT]
    kept, left_out = _fair_share(values.assign(heading=headings), len(first))
    files = values.groupby(long.checkpoint).number.agg(
        lambda column: ", ".join(map(str, sorted(set(column))))
    )
    order = first.sort_values(["model", "step", "revision"], na_position="first").index
    about = "A row for each checkpoint, with one standard error where known. The CSV file has a row for each value."
    if left_out:
        about += f" {left_out} of {left_out + len(kept)} columns are in the CSV file alone, for want of room."
    shown = pd.concat([first, wide[kept], files.rename("files")], axis=1).loc[order]
    table = _table("values", "All values by checkpoint", about, shown, numeric=kept)
    return Table(**{**vars(table), "csv": _csv(tidy)})


def _fair_share(values: pd.DataFrame, checkpoints: int) -> tuple[list[str], int]:
    """Return the headings that there is room for, and how many there is none for.

    The loss comes first, then every task's first metric before any task's second.
    """
    metrics = values.drop_duplicates("heading")
    metrics = metrics.assign(
        place=metrics.groupby("task", sort=False).cumcount(),
        other=~metrics.task.str.startswith("lmsat_"),
        last=(metrics.task != LOSS[0]) | (metrics.metric != LOSS[1]),
    )
    by_place = metrics.sort_values(["last", "place", "other"], kind="stable").heading
    room = set(by_place[: max(1, CELLS // checkpoints)])
    shown = metrics.sort_values(["other", "task"], kind="stable").heading
    return [heading for heading in shown if heading in room], len(metrics) - len(room)


def _sources(analyses: Analyses) -> pd.DataFrame:
    """Return a row for each result file: the checkpoint, the text, the programs."""
    rows: list[dict[str, Any]] = []
    columns = [*_CHECKPOINT[:3], "commit", "corpus", "date", "path"]
    own = analyses.table[columns].sort_values("corpus", na_position="last", kind="stable")
    for row in own.drop_duplicates("path").sort_index().to_dict("records"):
        file = analyses.results.files[row["path"]]
        parts = file.provenance or [{}]
        corpora = [as_dict(part.get("corpus")) for part in parts]
        own_text = next((one for one in corpora if one.get("corpus") == row["corpus"]), {})
        rows.append(
            {
                **{
                    "#": len(rows) + 1,
                    "model": row["model"],
                    "revision": row["revision"],
                    "step": row["step"],
                },
                **{"commit": row["commit"], "corpus": row["corpus"]},
                "corpus sha256": as_text(own_text.get("sha256")),
                "measured": None if pd.isna(row["date"]) else f"{row['date']:%Y-%m-%d %H:%M}",
                "type": as_text(parts[0].get("dtype")),
                "lmsat": as_text(parts[0].get("lmsat_version")),
                "lm-eval": file.text("lm_eval_version"),
                "transformers": file.text("transformers_version"),
                "file": row["path"],
            }
        )
    return pd.DataFrame(rows)


def _provenance(sources: pd.DataFrame, folder: Path, analyses: Analyses) -> Table:
    def link(path: str) -> Link:
        file = analyses.results.files[path].path.absolute()
        return Link(path, quote(Path(os.path.relpath(file, folder.absolute())).as_posix()))

    shown = sources.assign(file=sources.file.map(link))
    for name in ("commit", "corpus sha256"):
        shown[name] = shown[name].str[:_SHORT]
    about = "Every value's result file; dates are UTC. The CSV file has the hashes in full."
    table = _table("sources", "Where the values come from", about, shown)
    return Table(**{**vars(table), "csv": _csv(sources)})


def _table(name: str, title: str, about: str, frame: pd.DataFrame, numeric: Sequence[str] = ()) -> Table:
    """Return a table of a frame's cells; ``numeric`` are columns of texts that begin with numbers."""
    shown = frame.loc[:, frame.notna().any()]
    columns = [str(column) for column in shown.columns]
    return Table(
        name,
        title,
        about,
        columns,
        [
            place
            for place, column in enumerate(shown.columns, 1)
            if column in numeric
            or (pd.api.types.is_numeric_dtype(shown[column]) and shown[column].dtype != bool)
        ],
        [list(row) for row in zip(*(_cells(shown[column]) for column in shown.columns), strict=True)],
        _csv(frame),
    )


def _cells(column: pd.Series) -> list[str | Link]:
    whole = pd.api.types.is_float_dtype(column) and bool((column.dropna() % 1 == 0).all())
    return [_cell(value, whole) for value in column.astype(object).where(column.notna(), None)]


def _cell(value: Any, whole: bool) -> str | Link:
    if value is None or isinstance(value, Link):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not whole:
        return f"{value:.5g}"
    return value if isinstance(value, str) else f"{int(value):,}"


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")

"""The tables of a report: verdicts, final values, values by checkpoint, and the result file of each value."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.comparison import PairComparison
from lmsat_plugin.analysis.emergence import Emergence
from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.analysis.saturation.metric_series import DEFAULT as LOSS
from lmsat_plugin.metrics import is_measurement
from lmsat_plugin.outside_text import as_csv
from lmsat_plugin.results.json_values import as_dict, as_text
from lmsat_plugin.results.series import PARTS
from lmsat_plugin.results.training_order import natural_places

CELLS = 45_000
"""The most cells of the table of values by checkpoint: more would make the page large."""
_HASH_LETTERS = 12
_CHECKPOINT = ["model", "revision", "step", "tokens"]
_WHERE_KNOWN = ("words", "total_step", "total_tokens", "stage", "run")
"""Columns that tables have only where some value is known: totals are those of stages that begin again."""
_MEASURED = ["task", "num_fewshot", "metric", "filter"]
_OF_SCORES = ("num_fewshot", "corrected_p_value")
"""Columns that verdicts have only where they are by scores."""
_SATURATION = {
    **{"model": "model", "variant": "variant", "stage": "stage", "run": "run", "task": "task", "metric": "metric"},
    **{"num_fewshot": "n-shot", "verdict": "verdict", "p_value": "p", "corrected_p_value": "corrected p"},
    **{"best": "best"},
    **{"best_step": "at step", "final": "final", "final_step": "final step", "onset_step": "onset"},
    **{"onset_low": "earliest onset", "onset_high": "latest onset", "tolerance": "tolerance", "power": "power"},
    "n_checkpoints": "checkpoints",
}
_EMERGENCE = {
    **{"task": "task", "metric": "metric", "variant": "variant", "emergent": "emergent"},
    **{"threshold": "threshold", "low": "lowest threshold", "high": "highest threshold", "p_value": "p"},
    **{"spearman": "Spearman", "chance": "chance", "n_points": "checkpoints", "n_models": "models"},
}
_EVENTS = {
    **{"run": "run", "task": "task", "metric": "metric", "kind": "event", "at": "at", "low": "earliest"},
    **{"high": "latest", "value": "value", "corrected_p_value": "corrected p", "beside_onset": "beside the onset"},
}
_ORDER = {
    **{"task": "task", "metric": "metric", "kind": "event", "before": "before", "same_time": "same time"},
    **{"after": "after", "with_onset": "runs with both", "onsets": "runs with an onset"},
    **{"without_onset": "without onset", "judged_without_onset": "runs without onset"},
}
_COMPARISON = {
    **{"task": "task", "metric": "metric", "num_fewshot": "n-shot", "filter": "filter", "a": "a", "b": "b"},
    **{"difference": "difference", "low": "from", "high": "to", "p": "p", "better": "better", "mde": "detectable"},
    **{"n": "n", "unit": "paired by", "reason": "not compared"},
}
_FINAL = {
    **{"model": "model", "step": "step", "tokens": "tokens", "words": "words", "total_step": "steps in total"},
    **{"total_tokens": "tokens in total", "task": "task", "num_fewshot": "n-shot"},
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
    """The columns of numbers, counted from 1 as CSS counts."""
    rows: list[list[str | Link]]
    csv: str


def tables_of(analyses: Analyses, folder: Path) -> list[Table]:
    """Return the tables of a report. Links to result files are relative to ``folder``, where the report is."""
    sources = _sources(analyses)
    numbers = dict(zip(sources.file, sources["#"], strict=True))
    own = analyses.table
    totals = {name: own[name].where(own.branch.notna()) for name in ("total_step", "total_tokens")}
    values = own.assign(number=own.path.map(numbers), **totals)
    tables = []
    for name, about, results, columns in (
        ("saturation", "Steps are training steps.", analyses.saturation, _SATURATION),
        ("emergence", "Thresholds are losses.", analyses.emergence, _EMERGENCE),
    ):
        if results:
            verdicts = _known(pd.DataFrame(list(map(_in_places, results)))[list(columns)])
            verdicts = verdicts.drop(
                columns=[name for name in _OF_SCORES if verdicts.get(name, pd.Series([0])).isna().all()]
            )
            tables.append(_table(verdicts.rename(columns=columns), name, f"Verdicts on {name}", about))
    tables += _events(analyses)
    tables += map(_comparison, analyses.comparison)
    tidy = own.drop(columns=[*PARTS, "group"])
    return [*tables, _final(values), _by_checkpoint(values, tidy), _provenance(sources, folder, analyses)]


def _events(analyses: Analyses) -> Iterator[Table]:
    """Yield the events of all runs, and their order beside the onset."""
    found = analyses.events
    if not found.order:
        return
    about = (
        "Turns and jumps beyond checkpoint-to-checkpoint noise, p < 0.05 after Holm's correction for all tests of a "
        "run, with 90 % intervals."
    )
    rows = found.to_frame().sort_values(["run", "at"], kind="stable")
    yield _table(rows[list(_EVENTS)].rename(columns=_EVENTS), "events", "Events of every metric", about)
    rows = found.order.to_frame()[list(_ORDER)].rename(columns=_ORDER)
    about = "In how many runs an event lies before, at the same time as (the intervals overlap), or after the onset."
    yield _table(
        rows, "event-order", "Order of events over all runs", about + " What comes first need not be the cause."
    )


def _comparison(pair: PairComparison) -> Table:
    rows = [{**asdict(row), "better": row.better} for row in pair.metrics]
    shown = _known(pd.DataFrame(rows, columns=list(_COMPARISON))).rename(
        columns={**_COMPARISON, "a": pair.reference, "b": pair.model}
    )
    places = ", ".join(f"{one.run} at {one.place}" for one in pair.checkpoints)
    about = " ".join([pair.sentence, f"Compared are {places}.", *pair.notes])
    return _table(shown, "comparison", f"Is the difference real? {pair.model} against {pair.reference}", about)


def _in_places(result: Saturation | Emergence) -> dict[str, Any]:
    """Return a verdict as plain data, with the places in words of a series whose names state no steps."""
    values = result.to_dict()
    if isinstance(result, Saturation) and result.axis != "step":
        for name in ("best", "final", "onset"):
            at = values[f"{name}_at"]
            values[f"{name}_step"] = None if at is None else result.place(at)
        for name in ("onset_low", "onset_high"):
            values[name] = None if values[name] is None else result.place(values[name])
    return values


def _known(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[name for name in _WHERE_KNOWN if name in frame.columns and frame[name].isna().all()])


def _final(values: pd.DataFrame) -> Table:
    order = values.sort_values(["at", "date"], na_position="first", kind="stable")
    last = _known(order.drop_duplicates(["model", "corpus", *_MEASURED], keep="last").sort_index())
    alike = [name for name in ("num_fewshot", "filter") if last[name].nunique(dropna=False) == 1]
    return _table(
        last[[name for name in _FINAL if name in last.columns]].drop(columns=alike).rename(columns=_FINAL),
        "final",
        "Final values",
        "Each value at its model's last checkpoint that has it, in the unit of its task; ± is one standard error, "
        "file is the number of the result file in the table of sources.",
    )


def _by_checkpoint(values: pd.DataFrame, tidy: pd.DataFrame) -> Table:
    """Return a row for each checkpoint and a column for each value, as many columns as the page has room for."""
    texts = values.value.map("{:.5g}".format)
    known = values.stderr.notna()
    texts[known] += " ± " + values.stderr[known].map("{:.2g}".format).astype(str)
    headings = headings_of(values)
    long = values[_CHECKPOINT].assign(heading=headings, text=texts)
    long["checkpoint"] = values.groupby(_CHECKPOINT, dropna=False, sort=False).ngroup()
    # Results that agree in all these columns, but differ in their commit for instance, are one checkpoint's: the last
    # of them is shown.
    wide = long.drop_duplicates(["checkpoint", "heading"], keep="last").pivot(
        index="checkpoint", columns="heading", values="text"
    )
    more = [name for name in _known(values).columns if name in ("words", "total_step", "total_tokens")]
    of_checkpoint = values.assign(checkpoint=long.checkpoint).drop_duplicates("checkpoint").set_index("checkpoint")
    first = of_checkpoint[[*_CHECKPOINT, *more]].rename(columns=_FINAL)
    kept, left_out = with_room(values.assign(heading=headings), CELLS // len(first))
    files = values.groupby(long.checkpoint).number.agg(lambda column: ", ".join(map(str, sorted(set(column)))))
    order = of_checkpoint.sort_values(["model", "at", "revision"], na_position="first", key=natural_places).index
    about = "A row for each checkpoint, with one standard error where known. The CSV file has a row for each value."
    if left_out:
        about += f" {left_out} of {left_out + len(kept)} columns are in the CSV file alone, for want of room."
    shown = pd.concat([first, wide[kept], files.rename("files")], axis=1).loc[order]
    table = _table(shown, "values", "All values by checkpoint", about, numeric=kept)
    return replace(table, csv=as_csv(tidy))


def headings_of(values: pd.DataFrame) -> pd.Series:
    """Return the name of each value's metric: task and metric, and shots and filters where these differ."""
    headings = values.task + " " + values.metric
    for column, suffix in (("num_fewshot", "-shot"), ("filter", "")):
        if values.groupby(["task", "metric"])[column].nunique().gt(1).any():
            # An old result may name neither, and what is derived has no filter.
            named = " " + values[column].astype("string") + suffix
            headings += named.fillna("").astype(headings.dtype)
    return headings


def with_room(values: pd.DataFrame, most: int) -> tuple[list[str], int]:
    """Return the headings of the metrics that the page has room for, and the number of those left out.

    The loss has room first, then each task's first metric, then each task's second. ``values`` have their ``heading``.
    """
    metrics = values.drop_duplicates("heading")
    metrics = metrics.assign(
        position=metrics.groupby("task", sort=False).cumcount(),
        other=~metrics.task.map(is_measurement),
        last=(metrics.task != LOSS[0]) | (metrics.metric != LOSS[1]),
    )
    by_priority = metrics.sort_values(["last", "position", "other"], kind="stable").heading
    kept = set(by_priority[: max(1, most)])
    shown = metrics.sort_values(["other", "task"], kind="stable", key=natural_places).heading
    return [heading for heading in shown if heading in kept], len(metrics) - len(kept)


def _sources(analyses: Analyses) -> pd.DataFrame:
    """Return a row for each result file: its checkpoint, its corpus, and the versions of the programs."""
    rows: list[dict[str, Any]] = []
    columns = [*_CHECKPOINT[:3], "commit", "corpus", "date", "path"]
    values = analyses.table[columns].sort_values("corpus", na_position="last", kind="stable")
    for row in values.drop_duplicates("path").sort_index().to_dict("records"):
        file = analyses.results.files[row["path"]]
        parts = file.provenance or [{}]
        corpora = [as_dict(part.get("corpus")) for part in parts]
        corpus = next((corpus for corpus in corpora if corpus.get("corpus") == row["corpus"]), {})
        rows.append(
            {
                "#": len(rows) + 1,
                **{name: row[name] for name in ("model", "revision", "step", "commit", "corpus")},
                "corpus sha256": as_text(corpus.get("sha256")),
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
    root = str(analyses.results.root.absolute())
    # Once for all: a tree may hold tens of thousands of files.
    to_root = os.path.relpath(root, folder.absolute())

    def link(path: str) -> Link:
        file = str(analyses.results.files[path].path.absolute())
        return Link(path, quote((to_root + file.removeprefix(root)).replace(os.sep, "/")))

    shown = sources.assign(file=sources.file.map(link))
    for name in ("commit", "corpus sha256"):
        shown[name] = shown[name].str[:_HASH_LETTERS]
    about = "Every value's result file; dates are UTC. The CSV file has the hashes in full."
    table = _table(shown, "sources", "Where the values come from", about)
    return replace(table, csv=as_csv(sources))


def _table(frame: pd.DataFrame, name: str, title: str, about: str, *, numeric: Sequence[str] = ()) -> Table:
    """Return the table of a frame, without empty columns. Texts in ``numeric`` columns begin with numbers."""
    shown = frame.loc[:, frame.notna().any()]
    is_numeric = [
        column in numeric or (pd.api.types.is_numeric_dtype(cells) and cells.dtype != bool)
        for column, cells in shown.items()
    ]
    return Table(
        name=name,
        title=title,
        about=about,
        columns=[str(column) for column in shown.columns],
        numeric=[place for place, numbers in enumerate(is_numeric, 1) if numbers],
        rows=[list(row) for row in zip(*(_cells(cells) for _, cells in shown.items()), strict=True)],
        csv=as_csv(frame),
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

"""Which rows of a table form one series, what the series is called, and the axis on which its checkpoints lie.

A series is a model's run through its pretraining stages, one after another. Each stage that begins again is its own.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.results.checkpoint_names import TrainingProgress, averaging_of, is_another_form, shape_of
from lmsat_plugin.results.training_order import Totals, branch_of, natural, stage_order
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SERIES = ("model", "variant", "branch", "replicate")
"""The columns that are constant within a series."""
PARTS = ("branch", "replicate", "axis", "at")
"""The columns that `in_series` adds."""
AXES = {
    "step": "training step",
    "tokens": "tokens seen",
    "words": "words seen",
    "order": "checkpoint, in the order of the names",
}
"""What the numbers of each axis count."""
_PLACE = ("model", "run", "stage", "revision", "step", "tokens", "words", "total_step", "total_tokens")
_VALUE = ("corpus", "task", "num_fewshot", "metric", "filter")
_ALIKE = 1e-6
"""How far values may differ that are of the same weights, as a share."""
_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))
_HASH = re.compile(r"(?=[a-f\d]*[a-f])[a-f\d]{7,}", re.IGNORECASE)


def begins_again(row: Mapping[Any, Any]) -> bool:
    """Return whether a checkpoint is of a stage that counts from 0 again: its totals are not its own numbers."""
    stage = row["stage"] if isinstance(row["stage"], str) else None
    progress = TrainingProgress(row["step"], row["tokens"], stage=stage or None)
    return branch_of(progress, Totals(row["total_step"], row["total_tokens"])) is not None


def in_series(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with `PARTS`, without checkpoints that contradict each other.

    ``branch`` is the stage of a series that begins again, how its checkpoints are averaged, or the revision of a
    checkpoint that lies on no run; ``replicate`` is the run where the model has several. ``at`` is the place on
    ``axis``, one of `AXES`: the one that most of a series' names state, or else the names' natural order if they differ
    in their numbers alone; missing where nothing is known. Two checkpoints at one place with different values are left
    out, with a warning.

    A table that has `PARTS` is returned as it is.
    """
    if set(PARTS) <= set(table.columns) or "model" not in table.columns:
        return table
    checkpoints, number = _checkpoints(table)
    rows: list[dict[Any, Any]] = checkpoints.to_dict("records")
    parts = _parts(rows)
    for place, name in enumerate(("branch", "replicate")):
        checkpoints[name] = np.array([part[place] for part in parts], dtype=object)
    axes = np.empty(len(rows), dtype=object)
    places = np.full(len(rows), np.nan)
    for own in checkpoints.groupby(["model", "branch", "replicate"], dropna=False, sort=False).indices.values():
        axis, places[own] = _axis(checkpoints.iloc[own])
        axes[own] = axis
    added: dict[str, Any] = {name: checkpoints[name].to_numpy(object)[number] for name in ("branch", "replicate")}
    return _without_contradictions(table.assign(**added, axis=axes[number], at=places[number]))


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which each model's name includes what tells its series apart: variants, runs, stages.

    It has the columns of `in_series`, and ``group``: the name that replicates, series that differ in their run, share.
    A table that has them is returned as it is.
    """
    if "group" in table.columns or "model" not in table.columns:
        return table
    table = in_series(table)
    keys = table.reindex(columns=list(SERIES))
    number = keys.groupby(list(SERIES), dropna=False, sort=False).ngroup().to_numpy()
    first = keys[~_repeated(number)].to_numpy(object)
    names = [series_label(*key) for key in first]
    groups = [series_label(*key[:3]) for key in first]
    counts = Counter(groups)
    groups = [group if counts[group] > 1 else name for group, name in zip(groups, names, strict=True)]
    return table.assign(model=np.array(names, object)[number], group=np.array(groups, object)[number])


def series_label(model: Any, variant: Any = None, branch: Any = None, replicate: Any = None) -> str:
    """Return the name of a series for people, such as ``OLMo-2 (stage2, ingredient1)``."""
    return label(str(model), ", ".join(part for part in (variant, branch, replicate) if isinstance(part, str) and part))


def data_seen(table: pd.DataFrame) -> pd.Series | None:
    """Return the tokens seen since the start of training; missing where unknown. None for a table without tokens."""
    import pandas as pd

    if "tokens" not in table.columns or "branch" not in table.columns:
        return table.get("tokens")
    totals = table.get("total_tokens", pd.Series(pd.NA, index=table.index, dtype="Int64"))
    return table["tokens"].where(table.branch.isna(), totals)


def stages_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the stages that rows of one series have, in order; () unless there are several."""
    if "stage" not in rows.columns:
        return ()
    stages = sorted((stage for stage in rows.stage.unique() if isinstance(stage, str)), key=stage_order)
    return tuple(stages) if len(stages) > 1 else ()


def stage_notes(table: pd.DataFrame) -> list[str]:
    """Return a sentence on each series of a table that is `labelled` and has several stages."""
    by_model = ((model, stages_of(rows)) for model, rows in table.groupby("model", sort=False))
    return [f"{model}: its stages {', '.join(stages)}, one after another" for model, stages in by_model if stages]


def place_in_words(axis: str, at: float, name: str | None = None) -> str:
    """Return a place on an axis in words: ``step 1,000``, ``220B tokens``, or the checkpoint's name."""
    if axis == "order":
        return name or f"checkpoint {at:.0f}"
    return f"step {at:,.0f}" if axis == "step" else f"{short_count(at)} {axis}"


def short_count(number: float) -> str:
    """Return a count without loss in few letters, such as 220B."""
    for unit, letter in _UNITS:
        if number >= unit:
            return f"{number / unit:.15g}{letter}" if number % (unit / 1000) == 0 else f"{number:,.0f}"
    return f"{number:,.0f}"


def _checkpoints(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return what names and sweeps state of each checkpoint of a table, and the checkpoint's number in each row."""
    keys = [name for name in _PLACE if name in table.columns]
    number = table.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    checkpoints = table.loc[~_repeated(number), keys].reindex(columns=list(_PLACE)).reset_index(drop=True)
    return checkpoints.astype(object).where(checkpoints.notna(), None), number


def _repeated(number: np.ndarray) -> np.ndarray:
    """Return whether each number stood before. Numbers count up in the order in which they first come."""
    repeated = np.ones(len(number), dtype=bool)
    repeated[np.unique(number, return_index=True)[1]] = False
    return repeated


def _parts(rows: Sequence[dict[Any, Any]]) -> list[tuple[str | None, str | None]]:
    """Return the branch and the replicate of each checkpoint."""
    runs: dict[Any, set[Any]] = {}
    pretraining: dict[Any, set[Any]] = {}
    again = [begins_again(row) for row in rows]
    for row, is_again in zip(rows, again, strict=True):
        if _is_placed(row) or row["run"] is not None or row["stage"] is not None:
            runs.setdefault(row["model"], set()).add(row["run"])
            if not is_again:
                pretraining.setdefault(row["model"], set()).add(row["run"])
    branched = {row["model"] for row, is_again in zip(rows, again, strict=True) if is_again}
    parts: list[tuple[str | None, str | None]] = []
    for row, is_again in zip(rows, again, strict=True):
        model, run = row["model"], row["run"]
        several = runs if is_again else pretraining
        branch = row["stage"] if is_again else None
        averaging = averaging_of(row["revision"])
        loose = not _is_placed(row) and run is None and row["stage"] is None and averaging is None
        if loose and (model in branched or len(pretraining.get(model, ())) > 1):
            branch = row["revision"]
        branch = ", ".join(filter(None, (branch, averaging))) or None
        parts.append((branch, run if len(several.get(model, ())) > 1 else None))
    return parts


def _axis(own: pd.DataFrame) -> tuple[str | None, np.ndarray]:
    """Return the axis of the checkpoints of a series, and their places on it."""
    known = {name: int(own[name].notna().sum()) for name in ("step", "tokens", "words")}
    axis = max(known, key=lambda name: known[name])
    if known[axis]:
        return axis, own[axis].astype("float64").to_numpy()
    order = _order(map(str, own.revision.dropna()))
    places = own.revision.map(lambda name: order.get(str(name), np.nan)).to_numpy("float64")
    return ("order" if order else None), places


def _order(names: Iterable[str]) -> dict[str, int]:
    """Return the places, from 1 on, of names that differ in their numbers alone; those of another form have none."""
    alike: dict[str, set[str]] = {}
    for name in names:
        shape = shape_of(name)
        if shape is not None and not is_another_form(name) and not _HASH.fullmatch(name):
            alike.setdefault(shape, set()).add(name)
    most = max(alike.values(), key=len, default=set())
    return {name: place for place, name in enumerate(sorted(most, key=natural), 1)} if len(most) > 1 else {}


def _is_placed(row: Mapping[Any, Any]) -> bool:
    return any(row[name] is not None for name in ("step", "tokens", "words"))


def _without_contradictions(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without second names of one checkpoint, and without places at which values contradict."""
    if not {"revision", "value", "metric", "task"} <= set(table.columns):
        return table
    names = [name for name in ("revision", "commit") if name in table.columns]
    place = [*(name for name in SERIES if name in table.columns), "at"]
    numbered = table.reset_index(drop=True)
    placed = numbered[numbered["at"].notna()]
    checkpoints = placed[[*place, *names]].drop_duplicates()
    twice = checkpoints[checkpoints.duplicated(place, keep=False)]
    if twice.empty:
        return table
    number = placed[place].groupby(place, dropna=False, sort=False).ngroup()
    doubtful = placed[number.isin(number[twice.index])]
    gone: list[Any] = []
    sentences: dict[str, list[str]] = {}
    if "date" in doubtful.columns:
        doubtful = doubtful.sort_values("date", na_position="first", kind="stable")
    for _, own in doubtful.groupby(number, sort=False):
        several = own[own.duplicated([name for name in _VALUE if name in own.columns], keep=False)]
        values = several.groupby([name for name in _VALUE if name in own.columns], dropna=False, sort=False)
        again = [row for rows in values.indices.values() for row in rows[:-1]]
        if all(_are_alike(several.iloc[rows]) for rows in values.indices.values()):
            gone += list(several.index[again])
            continue
        gone += list(own.index)
        first = own.iloc[0]
        said = sentences.setdefault(series_label(*(first.get(name) for name in SERIES)), [])
        said.append(f"{_names(own, names)} at {place_in_words(first.axis, first['at'], first.revision)}")
    for series, said in sentences.items():
        more = f", and so do {len(said) - 1} more places" if len(said) > 1 else ""
        logger.warning(
            "%s: %s have different values%s: these checkpoints are left out; keep the results of one of each",
            *(series, said[0], more),
        )
    return table[~numbered.index.isin(gone)]


def _are_alike(rows: pd.DataFrame) -> bool:
    """Return whether results of one value are of the same weights, or agree."""
    if "commit" in rows.columns and rows.commit.notna().all() and rows.commit.nunique() == 1:
        return True
    values = rows.value.to_numpy("float64")
    return bool(np.isclose(values, values[0], rtol=_ALIKE, atol=0, equal_nan=True).all())


def _names(own: pd.DataFrame, names: list[str]) -> str:
    """Return the names of checkpoints, with their commits where the names are the same."""
    several = own[names].drop_duplicates()
    if several.revision.nunique() > 1 or len(names) == 1:
        return " and ".join(map(str, several.revision.unique()))
    commits = several["commit"].map(lambda commit: str(commit)[:12] if isinstance(commit, str) else "without a commit")
    return " and ".join(f"{name} ({commit})" for name, commit in zip(several.revision, commits, strict=True))

"""The LM head that each result was measured with, and downstream accuracies by head rank."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmsat_plugin.analysis.input_tables import records
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import user_path
from lmsat_plugin.metrics import ACCURACIES, is_measurement
from lmsat_plugin.model.head_files import RestrictedHead, describe_head
from lmsat_plugin.results.origins import Naming, read_origin
from lmsat_plugin.results.reading import ResultFile
from lmsat_plugin.results.training_order import natural
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Checkpoint = tuple[str, str]
"""A model and its revision, as the model arguments ``pretrained`` and ``revision`` name them."""

_NUMBER = r"([1-9]\d{0,8})"
_RANK = re.compile(_NUMBER)
_FILE = re.compile(rf"(_truncated)?_rank_{_NUMBER}\.safetensors$")
_NEXT_TOKEN = re.compile(rf"accuracy_rank_{_NUMBER}")


@dataclass(frozen=True)
class HeadRun:
    """The model of one result file: a checkpoint with an LM head."""

    checkpoint: Checkpoint
    curve: str | None
    """The kind of the head, one of `CURVES`; None for the model's own."""
    rank: int | None
    """The head's rank; None for the model's own."""
    settings: dict[str, str]
    """Other settings that distinguish runs of the same weights."""
    groups: dict[str, list[str]]
    """The member tasks of each group."""


@dataclass(frozen=True)
class Accuracy:
    """The share of right answers that a model gives with one head."""

    task: str
    variant: str | None
    """The settings in which results of the task differ, such as the number of shots; None where they do not."""
    metric: str
    curve: str | None
    """The kind of the head, one of `CURVES`; None for the model's own."""
    rank: int | None
    """The head's rank; for the model's own the width, None where that is unknown."""
    value: float
    stderr: float
    """NaN if unknown."""


def read_runs(results: Results) -> dict[str, HeadRun]:
    """Return the run of each result file, by its path in the table; with a warning, not of heads of unknown rank."""
    runs = {}
    for path in results.table.path.unique():
        try:
            runs[path] = _read_run(results.files[path])
        except LmsatError as error:
            logger.warning("Left out: %s: %s", path, error)
    return runs


def _read_run(file: ResultFile) -> HeadRun:
    # Without a sweep's notes, since a sweep names one model differently for each head.
    config = {**file.header["config"], "model_revision": None}
    origin = read_origin({**file.header, "config": config}, [], file.path, file.path.name, naming=Naming())
    settings = {key: value for key, value in origin.settings.items() if key != "folder"}
    curve, rank = _head(settings.pop("head", None), settings.pop("head_rank", None), config.get("lmsat_head"))
    return HeadRun(
        checkpoint=(origin.model, origin.revision), curve=curve, rank=rank, settings=settings, groups=file.group_members
    )


def _head(file: str | None, rank: str | None, recorded: Any) -> tuple[str | None, int | None]:
    """Return the kind and the rank of the head of the model arguments ``head`` and ``head_rank``.

    ``recorded`` is what the result file says of the head, if it does.
    """
    if file is None and rank is None:
        return None, None
    if file is None and rank is not None and _RANK.fullmatch(rank):
        return "truncated", int(rank)
    if file is not None and rank is None and (head := _recorded(recorded) or _described(file) or _named(file)):
        return head.kind, head.rank
    given = " and ".join(f"{key}={value}" for key, value in (("head", file), ("head_rank", rank)) if value is not None)
    raise LmsatError(
        f"{given} does not say a rank: run with head_rank=R, or with head=FILE alone, a file that lmsat_rank_head saved"
    )


def _recorded(recorded: Any) -> RestrictedHead | None:
    match recorded:
        case {"rank": int(rank), "kind": "trained" | "weighted" as kind}:
            return RestrictedHead(rank=rank, kind=kind)
    return None


def _described(file: str) -> RestrictedHead | None:
    """Return what the head in a file is, if the file is still there."""
    try:
        return describe_head(user_path(file))
    except (LmsatError, RuntimeError):
        return None


def _named(file: str) -> RestrictedHead | None:
    """Return what a file's name says of its head: earlier results do not record it."""
    name = _FILE.search(file)
    return RestrictedHead(rank=int(name[2]), kind="weighted" if name[1] else "trained") if name else None


def hidden_sizes(table: pd.DataFrame, runs: Mapping[str, HeadRun]) -> dict[Checkpoint, int]:
    """Return the width of each checkpoint, where some result states it."""
    known = table[table.hidden_size.notna() & table.path.isin(runs)]
    return {runs[path].checkpoint: int(size) for path, size in zip(known.path, known.hidden_size, strict=True)}


def accuracies_by_rank(table: pd.DataFrame, runs: Mapping[str, HeadRun]) -> dict[Checkpoint, list[Accuracy]]:
    """Return the accuracies of lm-eval's tasks that were run with heads of some rank, and with the model's own head.

    The accuracy of a task is the first of `ACCURACIES` that it has. Members of a group are left out beside the group.
    Of several results of one head the newest is kept. The variant is the settings in which results of a task differ.
    """
    widths, rows = hidden_sizes(table, runs), _accuracy_rows(table, runs)
    variants: dict[tuple[Checkpoint, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        variants[runs[row["path"]].checkpoint, row["task"]].append(_settings(row, runs[row["path"]]))
    newest: dict[Checkpoint, dict[tuple[Any, ...], Accuracy]] = defaultdict(dict)
    for row in rows:
        run = runs[row["path"]]
        differing = _differing(variants[run.checkpoint, row["task"]])
        shown = [f"{key}={value}" for key, value in _settings(row, run).items() if key in differing]
        variant = ", ".join(shown) or None
        rank = widths.get(run.checkpoint) if run.curve is None else run.rank
        newest[run.checkpoint][row["task"], variant, run.curve, rank] = Accuracy(
            task=row["task"],
            variant=variant,
            metric=row["metric"],
            curve=run.curve,
            rank=rank,
            value=row["value"],
            stderr=row["stderr"],
        )
    return {
        checkpoint: sorted(
            kept,
            key=lambda row: (natural(row.task), natural(row.variant or ""), row.curve is None, row.curve, row.rank),
        )
        for checkpoint, by_head in newest.items()
        if (kept := _restricted(by_head.values()))
    }


def _accuracy_rows(table: pd.DataFrame, runs: Mapping[str, HeadRun]) -> list[dict[str, Any]]:
    """Return one row of the table for each task and filter of each file, from the oldest file to the newest."""
    rows = table[table.metric.isin(ACCURACIES) & ~table.task.map(is_measurement).astype(bool) & table.path.isin(runs)]
    order = rows.metric.map(ACCURACIES.index)
    rows = rows[order == order.groupby([rows.path, rows.task]).transform("min")]
    rows = rows.sort_values("date", na_position="first", kind="stable")
    shots = rows.num_fewshot.astype(object)
    rows = rows.assign(num_fewshot=shots.where(shots.notna(), None))
    there = set(zip(rows.path, rows.task, strict=True))
    all_rows: list[dict[Any, Any]] = rows.to_dict("records")
    return [
        row
        for row in all_rows
        if not any(
            row["task"] in tasks and group != row["task"] and (row["path"], group) in there
            for group, tasks in runs[row["path"]].groups.items()
        )
    ]


def _settings(row: Mapping[str, Any], run: HeadRun) -> dict[str, str]:
    own = {key: str(row[key]) for key in ("num_fewshot", "filter") if row[key] is not None}
    return {**run.settings, **own}


def _differing(variants: Sequence[dict[str, str]]) -> set[str]:
    """Return the settings that some variants lack, or have with another value."""
    return {key for some in variants for key in some if any(other.get(key) != some[key] for other in variants)}


def _restricted(accuracies: Collection[Accuracy]) -> list[Accuracy]:
    """Return the accuracies of the tasks that were run with another head than the model's own."""
    tasks = {(row.task, row.variant) for row in accuracies if row.curve is not None}
    return [row for row in accuracies if (row.task, row.variant) in tasks]


def describe(checkpoint: Checkpoint, table: pd.DataFrame, runs: Mapping[str, HeadRun]) -> dict[str, Any]:
    """Return ``model``, ``variant``, ``revision``, ``step``, series and ``hidden_size`` of a checkpoint with runs.

    The name is that of the results with the model's own head, since a sweep names each other head differently.
    """
    paths = [path for path, run in runs.items() if run.checkpoint == checkpoint]
    path = min(paths, key=lambda path: runs[path].curve is not None)
    (row,) = records(table[table.path == path].head(1))
    own = {} if runs[path].curve is None else {"model": checkpoint[0], "variant": None}
    return {
        **{key: row.get(key) for key in ("model", "variant", "revision", "step", "branch", "replicate")},
        **own,
        "hidden_size": hidden_sizes(table, runs).get(checkpoint),
    }


def next_token_accuracies(table: pd.DataFrame, path: str, corpus: str | None) -> list[Accuracy]:
    """Return how often the trained heads in a result of lmsat_rank_head give the next token most probability."""
    rows = table[(table.task == "lmsat_rank_head") & (table.path == path) & (table.corpus == corpus)]
    by_rank = {
        int(name[1]): (value, stderr)
        for metric, value, stderr in zip(rows.metric, rows.value, rows.stderr, strict=True)
        if (name := _NEXT_TOKEN.fullmatch(metric))
    }
    return [
        Accuracy(
            task="next token", variant=None, metric="accuracy", curve="trained", rank=rank, value=value, stderr=stderr
        )
        for rank, (value, stderr) in sorted(by_rank.items())
    ]

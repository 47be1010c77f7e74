"""Class `Law`: formula, columns and derived values of a scaling law; the points it is fitted to; draws of their runs.

Shapes: P points, G runs, R sets of constants, the first of them the estimate and the others the bootstrap's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.input_tables import as_floats, check_magnitudes, check_steps, is_tidy, numbers, table_of
from lmsat_plugin.analysis.losses import (
    check_nats,
    check_one_tokenizer,
    loss_of_results,
    losses_of_two_corpora,
    without_diverged,
)
from lmsat_plugin.analysis.scaling_laws.forms import Line, PowerSum, Variables
from lmsat_plugin.analysis.stats.bootstrap import Estimate, resample
from lmsat_plugin.results.series import labelled, stage_notes
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

TOTAL, NON_EMBEDDING = "n_params", "n_params_non_embedding"
COUNTS = {TOTAL: "all parameters", NON_EMBEDDING: "parameters without embeddings"}
RUNS_BEYOND = 3
"""How many more runs than fitted constants intervals need: with fewer they are too narrow."""
Prepared = tuple["pd.DataFrame", tuple[str, ...]]
"""A table with the columns of a law's variables, and sentences on where these come from."""


@dataclass(frozen=True, eq=False)
class Points:
    """The rows of a table as a fit needs them."""

    table: pd.DataFrame
    values: Variables
    """The law's variables, as in the table."""
    variables: Variables
    """The law's variables, as its form takes them."""
    losses_P: np.ndarray
    """Nats per token; NaN where missing."""
    runs_P: np.ndarray
    """The index of each point's run."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return int(self.runs_P.max()) + 1

    @property
    def repeated(self) -> bool:
        """Whether a run has several points."""
        return len(self.runs_P) > self.runs


Derive = Callable[[Mapping[str, np.ndarray], Points, np.ndarray], dict[str, np.ndarray]]
"""From constants, shapes [R], points, and how often each run counts, shape [R, G], to derived values, [R]."""


@dataclass(frozen=True)
class Law:
    """A scaling law that `fit` knows."""

    name: str
    formula: str
    form: PowerSum | Line
    columns: Mapping[str, str]
    """The column of each variable; that of N is one of `COUNTS`."""
    size: str
    """The variable that orders points from small to large."""
    counts: tuple[str, ...] = ()
    """The columns that may be N, the one of the law's paper first; empty for a law without N."""
    target: str = "loss"
    checkpoints: bool = False
    """Whether the law holds for checkpoints during training; for other laws these are a reason for a warning."""
    by_model: bool = False
    """Whether it is fitted to each model's rows, each of which then counts as a run."""
    prepare: Callable[[pd.DataFrame, str | None], Prepared] = lambda table, count: (table, ())
    derive: Derive = lambda values, points, counts_RG: {}
    remark: Callable[[Mapping[str, Estimate]], tuple[str, ...]] = lambda params: ()
    """From constants to sentences on them."""

    def read(self, table: pd.DataFrame, count: str | None, *, observed: bool = True) -> Points:
        """Return the points of a table, with N in the column ``count``; unless ``observed``, losses may be missing.

        Raises `LmsatError` for a missing column, variables that are not above 0, and losses that are not in nats.
        """
        table, diverged = without_diverged(table) if observed and not self.by_model else (table, [])
        check_steps(table)
        check_one_tokenizer(table)
        rows, notes = self.prepare(table, count)
        columns = {name: count or column if name == "N" else column for name, column in self.columns.items()}
        needed = list(dict.fromkeys([*columns.values(), *([self.target] if observed else [])]))
        # A fit says it among its warnings.
        level = logging.INFO if observed else logging.WARNING
        rows = numbers(rows, needed, optional=[self.target], positive=needed, level=level)
        check_magnitudes(rows, needed)
        for column in {self.target, *columns.values()} & {"loss", "other_loss"} & set(rows.columns):
            known = rows[rows[column].notna()]
            check_nats(known if column == "loss" else known[[column]].rename(columns={column: "loss"}))
        values = {name: rows[column].to_numpy(np.float64) for name, column in columns.items()}
        losses_P = rows[self.target].to_numpy(np.float64) if self.target in rows else np.full(len(rows), np.nan)
        warnings = diverged
        if left_out := len(table) - len(rows):
            warnings.append(f"{left_out} of {len(table)} rows are left out: they lack a number")
        runs_P, run_warnings = self._runs(rows)
        return Points(
            table=rows,
            values=values,
            variables=self.form.prepare(values),
            losses_P=losses_P,
            runs_P=runs_P,
            notes=notes,
            warnings=(*warnings, *run_warnings, *_shallow(rows)),
        )

    def _runs(self, rows: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
        each_P = np.arange(len(rows))
        if self.by_model:
            return each_P, ["positions count as independent, which losses in the same documents are not"]
        column = next((name for name in ("run", "model") if name in rows), None)
        if column is None:
            return each_P, ["there is no column model or run: each row counts as a run of its own"]
        runs_P = rows[column].astype(str).factorize()[0]
        # A row without a name is a run of its own.
        nameless_P = np.flatnonzero(rows[column].isna().to_numpy() | (runs_P < 0))
        runs_P[nameless_P] = len(runs_P) + nameless_P
        runs_P = np.unique(runs_P, return_inverse=True)[1]
        if len(set(runs_P)) == len(runs_P):
            return runs_P, []
        if self.checkpoints:
            return runs_P, ["checkpoints of a run are not independent: the intervals are those of drawing runs"]
        return runs_P, [
            f"rows of the same {column} are checkpoints of one run: before the end of their schedule they overestimate "
            "the loss, and they are not independent (give a column run where they are runs of their own)"
        ]


def draw_runs(runs_P: np.ndarray, repetitions: int, constants: int, seed: int) -> np.ndarray:
    """Return how often each run is drawn, with replacement, shape [R, G]; the points of a run stay together.

    Samples of a single run, or with fewer points than constants, cannot be fitted and are drawn again.
    """
    sizes_G = np.bincount(runs_P)

    def enough(counts_RG: np.ndarray) -> np.ndarray:
        drawn_RG = counts_RG > 0
        return (drawn_RG @ sizes_G >= constants) & (drawn_RG.sum(1) > 1)

    return resample(len(sizes_G), repetitions, seed, enough)


def rows_of(law: Law, data: Results | pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows of a table, or the losses of results without untrained models, and sentences on these.

    Raises `LmsatError` for results without losses.
    """
    table = table_of(data)
    if not is_tidy(table):
        return table, ()
    notes: tuple[str, ...] = ()
    if law.target == "loss":
        losses = loss_of_results(data)
    else:
        losses, note = losses_of_two_corpora(data)
        notes = (note,)
    losses = labelled(losses)
    notes += tuple(stage_notes(losses))
    if {"step", "total_step"} <= set(losses.columns):
        # A stage that begins again has seen the steps before it, too.
        losses = losses.assign(step=losses.step.where(losses.branch.isna(), losses.total_step))
    return losses[losses.tokens.fillna(1) > 0] if "tokens" in losses else losses, notes


def counts_of(law: Law, table: pd.DataFrame) -> list[str | None]:
    """Return the columns of a table that may be N, the one of the law's paper first; just that one if there is none."""
    if not law.counts:
        return [None]
    there = [name for name in law.counts if name in table and as_floats(table[name]).notna().any()]
    return [*there] or [law.counts[0]]


def _shallow(rows: pd.DataFrame) -> list[str]:
    if "n_layers" not in rows:
        return []
    shallow = int((as_floats(rows["n_layers"]) < 2).sum())
    if not shallow:
        return []
    return [f"{shallow} rows are of models with fewer than 2 layers, which Kaplan et al. leave out of their fits"]

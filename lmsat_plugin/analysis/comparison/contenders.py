"""Which models are compared, and at which of their checkpoints: at the end, at equal tokens, or at equal compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmsat_plugin.analysis.checkpoint_values import at_the_end, last_of, spread
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.series import data_seen, labelled, place_in_words, short_count
from lmsat_plugin.results.tree import Results
from lmsat_plugin.settings import closest

if TYPE_CHECKING:
    import pandas as pd

At = Literal["end", "tokens", "compute"]
Given = Results | tuple[Results, str]
"""Results of one model; or results of several, and the name of one, ``MODEL`` or ``MODEL@REVISION``."""

EQUAL = {"tokens": 0.01, "compute": 0.1}
"""How far apart, as a share, two numbers may lie that count as equal: names round tokens, and sizes differ."""
_MOST_NAMED = 6


@dataclass(frozen=True, eq=False)
class Contender:
    """A model that is compared: its runs, each with its checkpoints."""

    name: str
    results: Results
    table: pd.DataFrame
    """Its values; ``model`` is the name of the run, see `labelled`."""
    revision: str | None = None
    """The checkpoint that was asked for."""

    @cached_property
    def checkpoints(self) -> pd.DataFrame:
        """A row for each checkpoint: ``model, revision, group, axis, at, tokens, compute``, missing where unknown."""
        rows = self.table.assign(tokens=data_seen(self.table))
        named = ["group", "axis", "at", "tokens", "n_params"]
        table = rows.groupby(["model", "revision"], sort=False, dropna=False)[named].first().reset_index()
        table = table.assign(tokens=table.tokens.astype("float64"), n_params=table.n_params.astype("float64"))
        return table.assign(compute=6 * table.n_params * table.tokens)

    @property
    def candidates(self) -> pd.DataFrame:
        """The checkpoints that may be compared."""
        return self.checkpoints if self.revision is None else self._of_revision()

    def _of_revision(self) -> pd.DataFrame:
        return self.checkpoints[self.checkpoints.revision == self.revision]

    def until(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """Return the checkpoints of the runs that are compared, up to those that are."""
        ends = chosen.set_index("model")["at"]
        known = self.checkpoints[self.checkpoints.model.isin(ends.index)]
        return known[known["at"] <= known.model.map(ends)]


def find_contender(given: Given) -> Contender:
    """Return the model that is meant. Raises `LmsatError` where none is, or several are."""
    results, name = given if isinstance(given, tuple) else (given, None)
    series = results.series
    # What tells texts apart is no part of a model: its results on all texts are its own.
    variant = series.variant.map(results.model_variant)
    table = labelled(series.assign(variant=variant)).assign(own=series.model)
    if name is None:
        groups = list(table.group.unique())
        if len(groups) > 1:
            raise LmsatError(
                f"{results.root} holds several models, {listed(groups)}: name those to compare, with "
                f"--results {results.root}"
            )
        return Contender(name=groups[0], results=results, table=table)
    whole = _rows_of(table, name, results)
    if whole is not None:
        return Contender(name=_one_name(whole, name), results=results, table=whole)
    model, separator, revision = name.rpartition("@")
    rows = _rows_of(table, model, results) if separator else None
    if rows is None:
        groups = list(table.group.unique())
        meant = closest(model or name, [str(group) for group in groups])
        hint = f"did you mean {meant}?" if meant else f"give one of {listed(groups)}"
        raise LmsatError(f"{results.root} holds no model '{model or name}': {hint}")
    return pinned(Contender(name=_one_name(rows, model), results=results, table=rows), revision)


def pinned(contender: Contender, revision: str) -> Contender:
    """Return a model of which one checkpoint is compared. Raises `LmsatError` for one that it does not have."""
    revisions = list(dict.fromkeys(map(str, contender.table.revision)))
    if revision not in revisions:
        raise LmsatError(
            f"{contender.name} has no checkpoint '{revision}': give one of {listed(spread(revisions, _MOST_NAMED))}"
        )
    return Contender(f"{contender.name}@{revision}", contender.results, contender.table, revision)


def _rows_of(table: pd.DataFrame, name: str, results: Results) -> pd.DataFrame | None:
    """Return the rows of a model: by the name that its runs share, by that of a run, or by the last part of its own."""
    ways = (table.group, table.model, table.own, table.own.astype(str).str.rpartition("/")[2])
    for names in ways:
        rows = table[names == name]
        groups = list(rows.group.unique())
        if len(groups) > 1:
            raise LmsatError(f"'{name}' may be {' or '.join(map(str, groups))} in {results.root}: name one of them")
        if groups:
            return rows
    return None


def _one_name(rows: pd.DataFrame, name: str) -> str:
    """Return the name of rows for people: that of the run, if one was asked for, else that which its runs share."""
    return name if (rows.model == name).all() else str(rows.group.iloc[0])


def choose(pair: tuple[Contender, Contender], at: At) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the checkpoints of each model that are compared, one of each run, with the columns of `checkpoints`.

    Raises:
        LmsatError: Where no checkpoint is the last, or none of the two have seen equal tokens or had equal compute.
    """
    if at == "end":
        first, second = (_ends(contender) for contender in pair)
    else:
        first, second = _at_equal(pair, at)
    one, other = pair
    if one.results is other.results and _names(first) == _names(second):
        raise LmsatError(f"{one.name} and {other.name} are the same checkpoint: name two different ones")
    return first, second


def _names(chosen: pd.DataFrame) -> list[tuple[str, str]]:
    return sorted(zip(chosen.model, chosen.revision.astype(str), strict=True))


def _ends(contender: Contender) -> pd.DataFrame:
    last = last_of(contender.candidates)
    if last.empty:
        names = list(contender.candidates.revision.unique())
        raise LmsatError(
            f"the names of {contender.name}'s checkpoints, {listed(names)}, do not say which is the last: give "
            "MODEL@REVISION, or --step-pattern RE"
        )
    return at_the_end(last)


def _at_equal(pair: tuple[Contender, Contender], at: Literal["tokens", "compute"]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the last checkpoints at which both have the same tokens or compute, of all of their runs."""
    first_X, second_X = (_shared_by_runs(contender, at) for contender in pair)
    gaps_XX = np.abs(np.log(np.divide.outer(first_X, second_X)))
    # A pair is a match where neither has a closer partner.
    closest_XX = (gaps_XX <= gaps_XX.min(1, keepdims=True)) & (gaps_XX <= gaps_XX.min(0, keepdims=True))
    matches = np.argwhere(closest_XX & (gaps_XX <= np.log1p(EQUAL[at])))
    if not len(matches):
        spans = [
            f"{contender.name} has {_span(values_X, at)}"
            for contender, values_X in zip(pair, (first_X, second_X), strict=True)
        ]
        raise LmsatError(
            f"no two checkpoints are at equal {at} ({', '.join(spans)}), and nothing is interpolated: compare them "
            "with --at end, or name two as MODEL@REVISION"
        )
    row, column = max(matches, key=lambda match: min(first_X[match[0]], second_X[match[1]]))
    chosen = [
        contender.candidates[contender.candidates[at] == value]
        for contender, value in zip(pair, (first_X[row], second_X[column]), strict=True)
    ]
    return chosen[0].drop_duplicates("model"), chosen[1].drop_duplicates("model")


def _shared_by_runs(contender: Contender, at: Literal["tokens", "compute"]) -> np.ndarray:
    """Return the tokens, or the compute, at which all runs of a model have a checkpoint."""
    known = contender.candidates[contender.candidates[at] > 0]
    if known.empty:
        if contender.candidates.tokens.isna().all():
            raise LmsatError(
                f"the results do not say how many tokens {contender.name} has seen: give --tokens-per-step N, or "
                "compare with --at end"
            )
        raise LmsatError(
            f"the compute of {contender.name} is unknown, since its results do not state its size: compare with "
            "--at tokens or --at end"
        )
    runs = [set(own) for _, own in known.groupby("model")[at]]
    shared = set.intersection(*runs)
    if not shared:
        raise LmsatError(
            f"the runs of {contender.name} have no checkpoint at the same {at}: compare with --at end, or name a run"
        )
    return np.array(sorted(shared))


def _span(values_X: np.ndarray, at: str) -> str:
    low, high = (short_count(value) if at == "tokens" else f"{value:.3g}" for value in (values_X[0], values_X[-1]))
    unit = "tokens" if at == "tokens" else "FLOP"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def place_of(checkpoint: Mapping[Any, Any]) -> str:
    """Return where in its training a checkpoint lies, in words; its name where that is unknown."""
    axis, at, revision = (checkpoint[name] for name in ("axis", "at", "revision"))
    return place_in_words(axis, at, revision) if isinstance(axis, str) and np.isfinite(at) else str(revision)


def listed(names: Sequence[Any]) -> str:
    """Return names in words, the first of them where they are many."""
    shown = ", ".join(map(str, names[:_MOST_NAMED]))
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"

"""How runs learn: the change of the loss between successive checkpoints, and where it decelerates (`find_learning`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.comparison.same_settings import differing_settings, in_words
from lmsat_plugin.analysis.given_numbers import check_simulation
from lmsat_plugin.analysis.learning.changes import LossChange, change_between
from lmsat_plugin.analysis.learning.checkpoint_losses import CheckpointLosses, LossFiles
from lmsat_plugin.analysis.losses import loss_of_results
from lmsat_plugin.analysis.scaling_laws.fitted_law import Derived
from lmsat_plugin.analysis.scaling_laws.run_curves import fit_curves
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.framed import Framed
from lmsat_plugin.results.series import labelled, place_in_words
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Deceleration(Derived):
    """The place at which the loss decelerates, with its 90 % interval: the break of a broken power law."""

    loss: float | None = None
    """L_d, the loss of the curve there, nats per token."""
    rate_before: float | None = None
    rate_after: float | None = None
    """``rate_before`` and ``rate_after`` are −d ln L / d ln t far before the break and far after it."""


@dataclass(frozen=True, kw_only=True)
class RunLearning(Framed):
    """How one run learns. As a table, it has a row for each change between successive checkpoints."""

    model: str
    axis: str
    """What the places of checkpoints count: ``step``, ``tokens``, ``words``, or ``order``."""
    checkpoints: int
    changes: tuple[LossChange, ...]
    deceleration: Deceleration
    interference_before: float | None
    interference_after: float | None
    """``interference_before`` and ``interference_after`` are the means of D over the changes that end before the
    deceleration and over those that begin after it."""
    notes: tuple[str, ...]
    """Which checkpoints are not compared, and why."""
    tokens_at: Mapping[float, float] = field(default_factory=dict, repr=False, compare=False)
    """The tokens of the checkpoints whose tokens are known, by their places."""

    def over_tokens(self) -> RunLearning:
        """Return the same with tokens as places. Raises `LmsatError` where the tokens are not known."""
        if self.axis == "tokens":
            return self
        at, tokens = list(self.tokens_at), list(self.tokens_at.values())
        if not {place for change in self.changes for place in (change.before, change.at)} <= self.tokens_at.keys():
            raise LmsatError(
                f"the tokens of {self.model} are not known at all checkpoints: give tokens_per_step, or draw over steps"
            )

        def moved(place: float | None) -> float | None:
            return None if place is None else float(np.interp(place, at, tokens))

        slows = self.deceleration
        changes = [
            replace(change, before=self.tokens_at[change.before], at=self.tokens_at[change.at])
            for change in self.changes
        ]
        return replace(
            self,
            axis="tokens",
            changes=tuple(changes),
            deceleration=replace(slows, value=moved(slows.value), low=moved(slows.low), high=moved(slows.high)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        own = asdict(replace(self, tokens_at={}))
        del own["tokens_at"]
        return {**own, "changes": [change.to_dict() for change in self.changes], "notes": list(self.notes)}

    def frame_rows(self) -> Sequence[Mapping[str, Any]]:
        """Return the changes."""
        return [{"model": self.model, "axis": self.axis, **change.to_dict()} for change in self.changes]


def find_learning(results: Results, *, repetitions: int = 200, seed: int = 0) -> list[RunLearning]:
    """Return, for each run, how much of the change of the loss cancels between tokens, and which tokens get worse.

    Zero-sum learning (Mircea et al. 2025, arXiv 2506.05447): D of `interference` between successive checkpoints, from
    the array ``by_token`` of lmsat_loss. Parts of the text are thirds of its tokens: by how frequent a token of the
    vocabulary is in it (`thirds_of_mass`), and by the number of tokens of context. Without ``by_token``, D is bounded
    from below, and of the parts the mean change alone is known. The deceleration is the break of `fit_curves`.

    Args:
        results: Results with lmsat_loss on one text.
        repetitions: Simulations for the interval of the deceleration; 0 for none.
        seed: Of the random numbers.

    Raises:
        LmsatError: Without lmsat_loss, on several texts, and where no run has two checkpoints that compare with their
            arrays.
    """
    check_simulation(repetitions, seed, usual=200)
    table = labelled(loss_of_results(results))
    files = LossFiles(results)
    runs, sentences = [], []
    for model, rows in table.groupby("model", sort=False):
        placed = rows[rows["at"].notna()].sort_values("at", kind="stable").drop_duplicates("at", keep="last")
        changes, notes = _changes(str(model), placed, files)
        if not any(change.parts or change.interference_at_least is not None for change in changes):
            # Where there are no arrays, the reason is that of the first change.
            why = [change.reason for change in changes if change.reason is not None][:1]
            sentences.append([*notes, *(f"{model}: {reason}" for reason in why)][0])
            continue
        curve = {"repetitions": repetitions, "seed": seed}
        runs.append(_run(str(model), placed, changes, notes, curve=curve))
    if not runs:
        raise LmsatError(sentences[0])
    for sentence in sentences:
        logger.warning("Left out: %s", sentence)
    return runs


def _changes(model: str, rows: pd.DataFrame, files: LossFiles) -> tuple[list[LossChange], list[str]]:
    """Return the changes between successive checkpoints, and which are not compared."""
    finite = rows[np.isfinite(rows.loss.astype("float64"))]
    notes = []
    if gone := len(rows) - len(finite):
        notes.append(f"{model}: {gone} of {len(rows)} checkpoints are left out, whose loss is not finite")
    if len(finite) < 2:
        notes.append(
            f"{model} has {len(finite)} checkpoint with a known place and a finite loss: changes need two, "
            "measure another"
        )
        return [], notes[::-1]
    changes: list[LossChange] = []
    before: CheckpointLosses | None = None
    for row in finite.itertuples():
        now = files.read(str(row.path), float(row.at), float(row.loss))  # type: ignore[arg-type]
        if before is not None:
            names = tuple(place_in_words(str(row.axis), one.at, one.revision) for one in (before, now))
            if (difference := _difference(before, now, (names[0], names[1]))) is None:
                changes.append(change_between(before, now))
            else:
                notes.append(f"{model}: {names[0]} and {names[1]} are not compared: {difference}")
        before = now
    return changes, notes


def _difference(first: CheckpointLosses, second: CheckpointLosses, names: tuple[str, str]) -> str | None:
    """Return in what the texts, tokenizers or windows of two checkpoints differ; None where they are the same."""
    advice = "measure both alike"
    if keys := differing_settings(first.measured, second.measured):
        return f"{in_words(keys, first.measured, second.measured, names)}: {advice}"
    tokenizers = {first.measured.tokenizer, second.measured.tokenizer} - {None}
    if len(tokenizers) > 1:
        return f"their tokenizers differ: {advice}"
    for name in ("by_token", "by_token_ids", "by_document_tokens"):
        one, other = (checkpoint.arrays.get(name) for checkpoint in (first, second))
        if one is None or other is None:
            continue
        if one.shape != other.shape or (name != "by_token" and not np.array_equal(one, other)):
            return f"the tokens of their texts differ: {advice}"
    return None


def _run(
    model: str, rows: pd.DataFrame, changes: list[LossChange], notes: list[str], *, curve: dict[str, int]
) -> RunLearning:
    axis = str(rows.axis.iloc[0])
    deceleration = _deceleration(model, axis, rows, curve)
    before, after = [], []
    if (where := deceleration.value) is not None:
        before = [change.interference for change in changes if change.at <= where]
        after = [change.interference for change in changes if change.before >= where]
    return RunLearning(
        model=model,
        axis=axis,
        checkpoints=len(rows),
        changes=tuple(changes),
        deceleration=deceleration,
        interference_before=_mean(before),
        interference_after=_mean(after),
        notes=tuple(notes),
        tokens_at={float(at): float(tokens) for at, tokens in rows[["at", "tokens"]].dropna().itertuples(index=False)},
    )


def _deceleration(model: str, axis: str, rows: pd.DataFrame, curve: dict[str, int]) -> Deceleration:
    if axis == "order":
        return Deceleration(value=None, reason="the names of the checkpoints state no step and no tokens")
    try:
        finite = rows[np.isfinite(rows.loss.astype("float64"))]
        (fitted,) = fit_curves(finite[["loss"]].assign(model=model, step=finite["at"]), **curve)
    except LmsatError as error:
        return Deceleration(value=None, reason=str(error))
    found = fitted.deceleration
    if found.value is None:
        return Deceleration(value=None, reason=found.reason)
    rate = fitted.params["c"]
    return Deceleration(
        **asdict(found),
        loss=float(fitted.losses_at(np.array([found.value]))[0]),
        rate_before=rate,
        rate_after=rate - fitted.params["c_drop"],
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

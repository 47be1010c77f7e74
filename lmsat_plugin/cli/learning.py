"""``lmsat learning``: which tokens get better or worse from checkpoint to checkpoint, and how much of that cancels."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_data, read_results
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.formats import write_table
from lmsat_plugin.cli.tables import TextTable, three_decimals
from lmsat_plugin.results.series import place_in_words

if TYPE_CHECKING:
    from lmsat_plugin.analysis.learning import LossChange, RunLearning

_PARTS = ("frequent", "medium", "rare", "early", "middle", "late")
_MOST_NAMED = 6


class LearningCommand(AnsweringCommand):
    """Find how much of the change of the loss cancels between tokens, and which tokens get worse while the mean falls.

    D        1 - |sum of changes| / sum of |changes| over the text's tokens, from one checkpoint to the next: 0 where
             all change in one direction, 1 where the changes cancel (zero-sum learning, Mircea et al. 2025)
    worse %  the share of tokens whose loss rises
    frequent, medium, rare: thirds of the text's tokens, by how often a token of the vocabulary occurs in it
    early, middle, late: thirds of the text's tokens, by the number of tokens of context

    D needs the loss of every token, which lmsat_loss keeps with token_losses=true. Without it the table has a number
    that D is at least, and the mean change of each third. The loss decelerates where a power law of it breaks.
    """

    name = "learning"
    help = "which tokens get better or worse as the loss falls"
    examples = ("lmsat learning results/", "lmsat learning results/ --model 'my-*' --figure learning.png")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the results."""
        add_data(parser)

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the changes of each run."""
        from lmsat_plugin.analysis.learning import find_learning

        runs = find_learning(read_results(args))
        return Answer(data=[run.to_dict() for run in runs], parts=list(_parts(runs)), result=runs)

    def write(self, answer: Answer, form: str, *, raw: bool = False) -> bytes:
        """Return the content of a file; a table has a row for each change."""
        if form not in ("csv", "parquet"):
            return super().write(answer, form, raw=raw)
        import pandas as pd

        table = pd.concat([run.to_frame() for run in answer.result], ignore_index=True)
        return write_table(table.assign(rising_parts=table.rising_parts.map(", ".join)), form, raw=raw)


def _parts(runs: Sequence[RunLearning]) -> Iterator[TextTable | str]:
    pairs = [(run, change) for run in runs for change in run.changes]
    named = [name for name in _PARTS if any(name in change.parts for _, change in pairs)]
    columns = ["model", "from", "to", "loss", "change", "D", "worse %", *named]
    rows = [[*_places(run, change), *_numbers(change, named)] for run, change in pairs]
    yield TextTable("Change of the loss between checkpoints, nats per token", _filled(columns, rows), rows)
    if known := [(run, change) for run, change in pairs if change.worse is not None]:
        rows = [[*_places(run, change), *_rise_shares(change, named)] for run, change in known]
        yield TextTable("Share of the sum of all rises, %", ["model", "from", "to", *named], rows)
    for run in runs:
        yield from _sentences(run)


def _filled(columns: list[str], rows: list[list[Any]]) -> list[str]:
    """Return the columns that some row fills, and cut the rows to these."""
    kept = [index for index in range(len(columns)) if any(row[index] is not None for row in rows)]
    for row in rows:
        row[:] = [row[index] for index in kept]
    return [columns[index] for index in kept]


def _places(run: RunLearning, change: LossChange) -> list[Any]:
    return [run.model, f"{change.before:,.0f}", f"{change.at:,.0f}"]


def _numbers(change: LossChange, named: Sequence[str]) -> list[Any]:
    parts = [change.parts[name].change if name in change.parts else None for name in named]
    worse = None if change.worse is None else f"{100 * change.worse:.1f}"
    return [three_decimals(change.loss), _signed(change.change), _d(change), worse, *map(_signed, parts)]


def _rise_shares(change: LossChange, named: Sequence[str]) -> list[Any]:
    shares = [change.parts[name].rise_share if name in change.parts else None for name in named]
    return [None if share is None else f"{100 * share:.0f}" for share in shares]


def _signed(value: float | None) -> str | None:
    if value is None:
        return None
    # Four decimals of a small change would be 0, with a sign.
    return f"{value:+.1e}" if 0 < abs(value) < 5e-5 else f"{value + 0.0:+.4f}"


def _d(change: LossChange) -> str | None:
    if change.interference is not None:
        return f"{change.interference:.3f}"
    return None if change.interference_at_least is None else f"≥ {change.interference_at_least:.3f}"


def _sentences(run: RunLearning) -> Iterator[str]:
    falling = [change for change in run.changes if change.change < 0]
    for name in _PARTS:
        known = [change for change in falling if name in change.parts]
        if rising := [change for change in known if name in change.rising_parts]:
            tokens = f"{name} tokens" if name in _PARTS[:3] else f"tokens at {name} positions"
            places = _listed([place_in_words(run.axis, change.at) for change in rising])
            yield (
                f"{run.model}: the loss of {tokens} rises while the mean falls in {len(rising)} of {len(known)} "
                f"changes, ending at {places}."
            )
    if falling and all(change.parts for change in falling) and not any(change.rising_parts for change in falling):
        yield f"{run.model}: no third of the tokens gets worse on average while the mean loss falls."
    yield _deceleration(run)
    if run.interference_before is not None and run.interference_after is not None:
        yield (
            f"{run.model}: D is {run.interference_before:.3f} on average before the deceleration, and "
            f"{run.interference_after:.3f} after it."
        )
    yield from (f"{note}." for note in run.notes)
    reasons = [change.reason for change in run.changes if change.reason is not None]
    for reason in dict.fromkeys(reasons):
        of = "" if len(reasons) == len(run.changes) else f" of {reasons.count(reason)} of {len(run.changes)} changes"
        yield f"{run.model}: D{of} and which tokens get worse are not known: {reason}."


def _deceleration(run: RunLearning) -> str:
    found = run.deceleration
    if found.value is None:
        return f"{run.model}: no deceleration is found: {found.reason}."
    ends = ""
    if found.low is not None and found.high is not None:
        ends = f" (90 % interval: {found.low:,.0f} to {found.high:,.0f})"
    rates = [-value for value in (found.rate_before, found.rate_after) if value is not None]
    rises = ", where it rises" if rates[1] > 0 else ""
    return (
        f"{run.model}: the loss decelerates at {place_in_words(run.axis, round(found.value))}{ends}, where it is "
        f"{found.loss:.3f}; its slope in log-log is {rates[0]:.3f} before and {rates[1]:.3f} after{rises}."
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more

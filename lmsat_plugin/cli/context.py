"""``lmsat context``: where in the context a model stops improving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import argparse

    from lmsat_plugin.analysis.scaling_laws.context_by_checkpoint import CheckpointContext


class ContextCommand(AnsweringCommand):
    """Say how the loss falls with the position in the context, and where a model stops improving.

    Reads the arrays that lmsat_loss has left. To each checkpoint's losses a + b T^-c is fitted, T tokens of context
    (Kaplan et al. 2020, App. D.5). A model stops improving where doubling the context gains less than 1 % of the
    loss; "never" where the loss does not fall with context by more than chance, and > where it has not stopped at
    half the window, whose doubling is the last. The loss after one token shows what training does without context.
    """

    name = "context"
    help = "where in the context a model stops improving"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the data and the outputs."""
        add_data(parser, "a folder with result files, or one file")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the fits."""
        from lmsat_plugin.analysis.scaling_laws.context_by_checkpoint import find_context
        from lmsat_plugin.results.tree import Results

        results = read_data(args)
        if not isinstance(results, Results):
            raise LmsatError(f"{args.data} is a table: give the folder of results, whose arrays are read")
        found = find_context(results)
        columns = [
            "model",
            "step",
            "loss",
            "after 1 token",
            "±",
            "exponent",
            "90 % interval",
            "stops at",
            "interval",
        ]
        table = TextTable("Loss by position in the context", columns, [_row(one) for one in found])

        def draw() -> Any:
            from lmsat_plugin.figures.plot import plot

            return plot(found)

        return Answer([one.to_dict() for one in found], [table], draw)


def _row(one: CheckpointContext) -> list[Any]:
    gain = one.gain
    step = one.step if one.step is not None else one.revision or ""
    fixed = [one.label, step, one.loss, gain.first_loss, gain.first_stderr]
    if gain.exponent is None:
        return [*fixed, "never", "", "", ""]
    stops = [f"> {gain.window // 2}" if end is None else f"{end:.0f}" for end in _stops(one)]
    interval = f"{gain.exponent_low:.2f} to {gain.exponent_high:.2f}"
    return [*fixed, f"{gain.exponent:.2f}", interval, stops[0], f"{stops[1]} to {stops[2]}"]


def _stops(one: CheckpointContext) -> tuple[float | None, ...]:
    return one.gain.stops_at, one.gain.stops_low, one.gain.stops_high

"""``lmsat context``: how the loss falls with the position in the context, and where it stops falling."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_data, read_results
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable

if TYPE_CHECKING:
    from lmsat_plugin.analysis.scaling_laws.context_gain import CheckpointContext


class ContextCommand(AnsweringCommand):
    """Find how the loss falls with the position in the context, and where a model stops improving.

    Reads the arrays of lmsat_loss, and fits a + b T^-c to each checkpoint's losses, T tokens of context (Kaplan et al.
    2020, App. D.5). A model stops improving where doubling the context gains less than 1 % of the loss. The table says
    "never" where the loss does not fall with context by more than chance, and > where the model has not stopped at half
    the window, whose doubling is the last. The loss after one token shows the effect of training without context. The
    column "prefix" says where the prefix token stood: before every window, or before each document alone.
    """

    name = "context"
    help = "where in the context a model stops improving"
    examples = ("lmsat context results/", "lmsat context results/ --figure context.png")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the results."""
        add_data(parser)

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the fits."""
        from lmsat_plugin.analysis.scaling_laws.context_gain import find_context

        results = find_context(read_results(args))
        columns = ["model", "step", "loss", "prefix", "after 1 token", "±", "exponent", "90 % interval"]
        columns += ["stops at", "90 % interval"]
        table = TextTable("Loss by position in the context", columns, [_row(result) for result in results])
        return Answer(data=[result.to_dict() for result in results], parts=[table], result=results)


def _row(result: CheckpointContext) -> list[Any]:
    gain = result.gain
    step = result.step if result.step is not None else result.revision
    fixed = [result.label, step, result.loss, result.prefix, gain.first_loss, gain.first_stderr]
    if gain.exponent is None:
        return [*fixed, "never", None, None, None]
    ends = gain.stops_at, gain.stops_low, gain.stops_high
    at, low, high = (f"> {gain.window // 2}" if end is None else f"{end:.0f}" for end in ends)
    interval = f"{gain.exponent_low:.2f} to {gain.exponent_high:.2f}"
    return [*fixed, f"{gain.exponent:.2f}", interval, at, f"{low} to {high}"]

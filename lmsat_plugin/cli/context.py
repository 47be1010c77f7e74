"""``lmsat context``: where in the context a model stops to improve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.data import add_data, add_output, check_figure, read_data, write_figure_of
from lmsat_plugin.cli.tables import print_table

if TYPE_CHECKING:
    import argparse

    from lmsat_plugin.report.context_results import ContextOfCheckpoint


class Context(Command):
    """Say how the loss falls with the position in the context, and where a model stops to improve.

    Reads the arrays that lmsat_loss has left. To each checkpoint's losses a + b T^-c is fitted, T tokens of context
    (Kaplan et al. 2020, App. D.5). A model stops to improve where doubling the context gains less than 1 % of the
    loss; "never" where the loss does not fall with context by more than chance, and > where it has not stopped at
    half the window, whose doubling is the last. The loss after one token shows what training does without context.
    """

    name = "context"
    help = "where in the context a model stops to improve"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the data and the outputs."""
        add_data(parser, "a folder with result files, or one file")
        add_output(parser)

    def run(self, args: argparse.Namespace) -> None:
        """Print the table, and write the figure."""
        from lmsat_plugin.report.context_results import draw_context, find_context

        check_figure(args)
        found = find_context(read_data(args), Path(args.data).expanduser())
        write_figure_of(args, lambda: draw_context(found))
        if args.json:
            print(json.dumps([one.facts() for one in found], indent=2, allow_nan=False))
            return
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
        print_table("Loss by position in the context", columns, [_row(one) for one in found])


def _row(one: ContextOfCheckpoint) -> list[Any]:
    gain = one.gain
    step = one.step if one.step is not None else one.revision or ""
    fixed = [one.model, step, one.loss, gain.first_loss, gain.first_stderr]
    if gain.exponent is None:
        return [*fixed, "never", "", "", ""]
    stops = [f"> {gain.window // 2}" if end is None else f"{end:.0f}" for end in _stops(one)]
    interval = f"{gain.exponent_low:.2f} to {gain.exponent_high:.2f}"
    return [*fixed, f"{gain.exponent:.2f}", interval, stops[0], f"{stops[1]} to {stops[2]}"]


def _stops(one: ContextOfCheckpoint) -> tuple[float | None, ...]:
    return one.gain.stops_at, one.gain.stops_low, one.gain.stops_high

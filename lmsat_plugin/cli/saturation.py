"""``lmsat saturation``: does a model get worse late in training, since when, and how surely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.data import add_data, add_output, check_figure, read_data, write_figure_of
from lmsat_plugin.cli.tables import print_table

if TYPE_CHECKING:
    import argparse

    from matplotlib.figure import Figure

    from lmsat_plugin.analysis.saturation import Saturation


class SaturationCommand(Command):
    """Say of each model whether it saturates, plateaus or is still improving, or that this cannot be told, and why.

    The last checkpoints are compared with the best stretch before them, against what the wobble of single checkpoints
    and the sample of documents or questions give by chance, corrected for choosing the best of many. The onset is a
    change point with its 90 % interval. Anisotropy and singular entropy stand beside the verdict where results hold
    them: they have no part in it.
    """

    name = "saturation"
    help = "does a model get worse late in training, and since when"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the data, the metric and the output."""
        add_data(
            parser,
            "a folder with results of any lm-eval, or a CSV with the columns model, step, loss and optionally "
            "tokens, stderr",
        )
        parser.add_argument("--task", metavar="T", help="by default lmsat_loss, or the only task there is")
        parser.add_argument("--metric", metavar="M", help="by default loss, or the only metric there is")
        parser.add_argument(
            "--min-step",
            type=int,
            metavar="N",
            help="leave out what comes before (default: a hundredth of the last step)",
        )
        add_output(parser)

    def run(self, args: argparse.Namespace) -> None:
        """Print the verdicts, and write the figure."""
        from lmsat_plugin.report.saturation_results import find_saturation

        check_figure(args)
        table = read_data(args)
        found = find_saturation(table, Path(args.data).expanduser(), args.task, args.metric, args.min_step)
        write_figure_of(args, lambda: _draw(found))
        if args.json:
            print(json.dumps([one.facts() for one in found], indent=2, allow_nan=False))
        else:
            _print(found)


def _draw(found: list[Saturation]) -> Figure:
    from lmsat_plugin.report.saturation_figure import saturation_figure

    return saturation_figure(found)


def _print(found: list[Saturation]) -> None:
    from rich.markup import escape

    first = found[0]
    columns: dict[str, list[Any]] = {
        "model": [one.model for one in found],
        "corpus": [one.corpus for one in found],
        "n-shot": [one.num_fewshot for one in found],
        "filter": [one.filter for one in found],
        "verdict": [one.verdict for one in found],
        "best": [one.best for one in found],
        "at step": [one.best_step for one in found],
        "final": [one.final for one in found],
        "onset": [one.onset_step for one in found],
        "90 % interval": [
            None if one.onset_step is None else f"{one.onset_low:,} to {one.onset_high:,}" for one in found
        ],
        "p": [one.p_value for one in found],
    }
    for name in ("corpus", "n-shot", "filter"):
        if len(set(columns[name])) == 1:
            del columns[name]
    rows = [["" if cell is None else cell for cell in row] for row in zip(*columns.values(), strict=True)]
    print_table(escape(" ".join(filter(None, (first.task, first.metric)))), list(columns), rows)
    for one in found:
        print(f"{one.model}: {one.verdict}: {one.reason}.{_geometry(one)}")


def _geometry(one: Saturation) -> str:
    geometry = one.geometry
    if geometry is None:
        return ""
    said = [
        f"{words} at step {step:,}"
        for words, step in (
            ("the last layer's anisotropy jumps", geometry.anisotropy_jump_step),
            ("stays above 0.5 from its checkpoint", geometry.anisotropy_above_half_step),
            ("the head's singular entropy turns", geometry.entropy_turn_step),
            ("and spikes", geometry.entropy_spike_step),
        )
        if step is not None
    ]
    return f" Meanwhile {', '.join(said)}." if said else ""

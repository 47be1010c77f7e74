"""``lmsat emergence``: at which loss the scores of a task leave chance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.data import add_data, add_output, check_figure, read_data, write_figure_of
from lmsat_plugin.cli.tables import print_table

if TYPE_CHECKING:
    import argparse

    from matplotlib.figure import Figure

    from lmsat_plugin.analysis.emergence import Emergence as EmergenceOf


class Emergence(Command):
    """Say at which pretraining loss an ability appears, of every task and metric (Du et al. 2024).

    Reads the scores and lmsat_loss of many checkpoints of several models, and holds a break (at chance down to a loss,
    better below it) against curves that improve from the start. A threshold is given only where the break explains
    the scores clearly better; the reasons say why else. Beside it stand the correlations of score and loss, whether
    models of different sizes share one curve, and how well a sigmoid of the loss foretells the lowest losses.
    """

    name = "emergence"
    help = "at which loss an ability appears"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the data, what of it to take, the factor and the figure."""
        add_data(
            parser,
            "a folder with result files, or a CSV with the columns model, loss, task, metric, score and, if known, "
            "chance, stderr or n_samples, step",
        )
        parser.add_argument(
            "--factor",
            default="model",
            metavar="COLUMN",
            help="what models differ in that are asked to share one curve, such as tokenizer (default: model)",
        )
        parser.add_argument(
            "--loss",
            default="loss",
            metavar="METRIC",
            help="the column, or the metric of lmsat_loss, that is the loss: bits_per_byte compares across tokenizers",
        )
        parser.add_argument("--task", default="*", metavar="GLOB", help="only tasks of such names")
        parser.add_argument("--metric", default="*", metavar="GLOB", help="only metrics of such names")
        add_output(parser)

    def run(self, args: argparse.Namespace) -> None:
        """Print the verdicts, and write the figure."""
        from lmsat_plugin.analysis.emergence import find_emergence

        check_figure(args)
        table = read_data(args)
        found = find_emergence(table, loss=args.loss, task=args.task, metric=args.metric, factor=args.factor)
        write_figure_of(args, lambda: _draw(found))
        facts = [one.facts() for one in found]
        if args.json:
            print(json.dumps(facts, indent=2, allow_nan=False))
        else:
            _print(facts, args.loss)


def _draw(found: list[EmergenceOf]) -> Figure:
    from lmsat_plugin.report.emergence_figure import emergence_figure

    return emergence_figure(found)


def _print(found: list[dict[str, Any]], loss: str) -> None:
    columns = [
        "task",
        "metric",
        "emergent",
        "threshold",
        "90 % interval",
        "p",
        "Spearman",
        "Pearson",
        "points",
    ]
    columns += [f"one curve, any {found[0]['shared']['factor']}", "two-step error"]
    print_table(f"At which {loss} scores leave chance", columns, [_row(one) for one in found])
    for one in found:
        print(f"{one['task']}, {one['metric']}: {one['reason']}; {one['shared']['reason']}.")


def _row(one: dict[str, Any]) -> list[str]:
    ends = "" if one["low"] is None else f"{one['low']:.3f} to {one['high']:.3f}"
    sigmoid = one["two_step"]
    return [
        *(one["task"], one["metric"], _answer(one["emergent"]), _number(one["threshold"]), ends),
        *(_number(one[key]) for key in ("p_value", "spearman", "pearson")),
        *(str(one["n_points"]), _answer(one["shared"]["shared"])),
        _number(sigmoid and sigmoid["absolute_error"]),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _answer(verdict: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[verdict]

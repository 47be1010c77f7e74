"""``lmsat emergence``: at which loss the scores of a task exceed chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    import argparse


class EmergenceCommand(AnsweringCommand):
    """Say at which pretraining loss an ability appears, of every task and metric (Du et al. 2024).

    Reads the scores and lmsat_loss of many checkpoints of several models, and holds a break (at chance down to a loss,
    better below it) against curves that improve from the start. A threshold is given only where the break explains
    the scores clearly better; the reasons say why else. Beside it stand the correlations of score and loss, whether
    models of different sizes share one curve, and how well a sigmoid of the loss predicts the scores at the lowest losses.
    """

    name = "emergence"
    help = "at which loss an ability appears"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
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

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the verdicts."""
        from lmsat_plugin.analysis.emergence import find_emergence

        verdicts = find_emergence(
            read_data(args), loss=args.loss, task=args.task, metric=args.metric, factor=args.factor
        )
        data = [one.to_dict() for one in verdicts]
        columns = [
            "task",
            "metric",
            "variant",
            "emergent",
            "threshold",
            "90 % interval",
            "p",
            "Spearman",
            "Pearson",
        ]
        columns += ["points", f"one curve, any {args.factor}", "two-step error"]
        rows = [_row(one) for one in data]
        if not any(one["variant"] for one in data):
            columns.remove("variant")
            rows = [[*row[:2], *row[3:]] for row in rows]
        sentences = [f"{_name(one)}: {one['reason']}; {one['shared']['reason']}." for one in data]
        table = TextTable(f"At which {args.loss} scores exceed chance", columns, rows)

        def draw() -> Any:
            from lmsat_plugin.figures.plot import plot

            return plot(verdicts)

        return Answer(data, [table, *sentences], draw)


def _name(one: dict[str, Any]) -> str:
    return label(f"{one['task']}, {one['metric']}", one["variant"])


def _row(one: dict[str, Any]) -> list[str]:
    ends = "" if one["low"] is None else f"{one['low']:.3f} to {one['high']:.3f}"
    sigmoid = one["two_step"]
    return [
        *(
            one["task"],
            one["metric"],
            one["variant"] or "",
            _answer(one["emergent"]),
            _number(one["threshold"]),
            ends,
        ),
        *(_number(one[key]) for key in ("p_value", "spearman", "pearson")),
        *(str(one["n_points"]), _answer(one["shared"]["shared"])),
        _number(sigmoid and sigmoid["absolute_error"]),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _answer(verdict: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[verdict]

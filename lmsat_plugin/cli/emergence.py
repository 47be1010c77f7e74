"""``lmsat emergence``: the loss at which an ability appears."""

from __future__ import annotations

import argparse
from typing import Any

from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.results.variants import label

_ANSWERS = {True: "yes", False: "no", None: "unknown"}


class EmergenceCommand(AnsweringCommand):
    """Find the pretraining loss at which an ability appears, of every task and metric (Du et al. 2024).

    Reads the scores and lmsat_loss of many checkpoints of several models. A break, at chance down to a loss and better
    below it, is compared with curves that improve from the start. A threshold is given only where the break explains
    the scores clearly better; otherwise the reason is given. The table also shows the correlations of score and loss,
    whether models of different sizes share one curve, and how well a sigmoid of the loss predicts the scores at the
    lowest losses.
    """

    name = "emergence"
    help = "at which loss an ability appears"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the data, the factor, the loss, and which tasks and metrics to take."""
        add_data(
            parser,
            "a folder with result files, one file, or a CSV with the columns model, loss, task, metric, score and, if "
            "known, chance, stderr or n_samples, step",
        )
        parser.add_argument(
            "--factor",
            default="model",
            metavar="COLUMN",
            help="the column by which models differ that should share one curve, such as tokenizer (default: model)",
        )
        parser.add_argument(
            "--loss",
            default="loss",
            metavar="METRIC",
            help="the column, or the metric of lmsat_loss, that is the loss: bits_per_byte compares across tokenizers",
        )
        parser.add_argument("--task", default="*", metavar="GLOB", help="take only tasks with such names")
        parser.add_argument("--metric", default="*", metavar="GLOB", help="take only metrics with such names")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the verdicts."""
        from lmsat_plugin.analysis.emergence import find_emergence

        results = find_emergence(
            read_data(args), loss=args.loss, task=args.task, metric=args.metric, factor=args.factor
        )
        data = [result.to_dict() for result in results]
        columns: dict[str, list[Any]] = {key: [row[key] for row in data] for key in ("task", "metric")}
        if any(row["variant"] for row in data):
            columns["variant"] = [row["variant"] for row in data]
        columns |= {
            "emergent": [_ANSWERS[row["emergent"]] for row in data],
            "threshold": [_number(row["threshold"]) for row in data],
            "90 % interval": [None if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}" for row in data],
            "p": [_number(row["p_value"]) for row in data],
            "Spearman": [_number(row["spearman"]) for row in data],
            "Pearson": [_number(row["pearson"]) for row in data],
            "points": [str(row["n_points"]) for row in data],
            f"one curve, any {args.factor}": [_ANSWERS[row["shared"]["shared"]] for row in data],
            "two-step error": [_number(row["two_step"] and row["two_step"]["absolute_error"]) for row in data],
        }
        table = TextTable.of_columns(f"At which {args.loss} scores exceed chance", columns)
        names = [label(f"{row['task']}, {row['metric']}", row["variant"]) for row in data]
        reasons = [f"{row['reason']}; {row['shared']['reason']}" for row in data]
        sentences = [f"{name}: {reason}." for name, reason in zip(names, reasons, strict=True)]
        return Answer(data=data, parts=[table, *sentences], result=results)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"

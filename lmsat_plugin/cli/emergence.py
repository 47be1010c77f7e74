"""``lmsat emergence``: the loss at which an ability appears."""

from __future__ import annotations

import argparse
from typing import Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable, signed_percent, three_decimals
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.variants import label

_ANSWERS = {True: "yes", False: "no", None: "unknown"}


class EmergenceCommand(AnsweringCommand):
    """Find the pretraining loss at which an ability appears, of every task and metric (Du et al. 2024).

    Reads the scores and lmsat_loss of many checkpoints of several models. A break, at chance down to a loss and better
    below it, is compared with curves that improve from the start. A threshold is given only where the break explains
    the scores clearly better; otherwise the reason is given. The table also shows the correlations of score and loss,
    whether models of different sizes share one curve, and how well a sigmoid of the loss predicts the scores at the
    lowest losses.

    With --two-step it predicts the scores of larger models from smaller ones instead (Bhagia et al. 2024). A sigmoid of
    the loss, with free floor and ceiling and a perfect score at a loss of 0, is fitted to the models or sizes of
    --fit-models. It is read at the last checkpoint of those of --predict-model. The loss is best the task's own, in
    bits per byte of the correct answer. Where the table has n_params and tokens, the prediction
    from these is given too.
    """

    name = "emergence"
    help = "at which loss an ability appears"
    examples = (
        "lmsat emergence results/ --metric 'acc*'",
        "lmsat emergence scores.csv --two-step --fit-models 190M,370M,760M,1B --predict-model 13B",
    )

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
        parser.add_argument("--two-step", action="store_true", help="predict the scores of larger models from smaller")
        models = "models, or sizes as a column size names them"
        parser.add_argument("--fit-models", metavar="NAME,...", help=f"{models}, to fit")
        parser.add_argument("--predict-model", metavar="NAME,...", help=f"{models}, to predict")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the verdicts, or the predictions."""
        if args.two_step:
            return _predicted(args)
        for name in ("fit_models", "predict_model"):
            if getattr(args, name) is not None:
                raise LmsatError(f"--{name.replace('_', '-')} goes with --two-step: add that")
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
            "threshold": [three_decimals(row["threshold"]) for row in data],
            "90 % interval": [_ends(row) for row in data],
            "p": [three_decimals(row["p_value"]) for row in data],
            "Spearman": [three_decimals(row["spearman"]) for row in data],
            "Pearson": [three_decimals(row["pearson"]) for row in data],
            "points": [str(row["n_points"]) for row in data],
            f"one curve, any {args.factor}": [_ANSWERS[row["shared"]["shared"]] for row in data],
            "two-step error": [three_decimals(row["two_step"] and row["two_step"]["absolute_error"]) for row in data],
        }
        table = TextTable.of_columns(f"At which {args.loss} scores exceed chance", columns)
        names = [label(f"{row['task']}, {row['metric']}", row["variant"]) for row in data]
        reasons = [f"{row['reason']}; {row['shared']['reason']}" for row in data]
        sentences = [f"{name}: {reason}." for name, reason in zip(names, reasons, strict=True)]
        return Answer(data=data, parts=[table, *sentences], result=results)


def _predicted(args: argparse.Namespace) -> Answer:
    """Return the scores of the models to predict."""
    from lmsat_plugin.analysis.emergence import predict_scores

    fitted, targets = (
        [name.strip() for name in (text or "").split(",")] for text in (args.fit_models, args.predict_model)
    )
    if not all((*fitted, *targets)):
        raise LmsatError("--two-step needs models: add --fit-models NAME,... and --predict-model NAME,...")
    results = predict_scores(read_data(args), fitted, targets, loss=args.loss, task=args.task, metric=args.metric)
    data = [result.to_dict() for result in results]
    columns: dict[str, list[Any]] = {
        "task": [label(row["task"], row["variant"]) for row in data],
        "metric": [row["metric"] for row in data],
        "model": [row["model"] for row in data],
        args.loss: [three_decimals(row["loss"]) for row in data],
        "predicted": [three_decimals(row["predicted"]) for row in data],
        "90 % of new runs": [_ends(row) for row in data],
        "observed": [three_decimals(row["observed"]) for row in data],
        "error %": [signed_percent(row["relative_error"]) for row in data],
    }
    if any(chained := [row["chained"] for row in data]):
        columns |= {
            "from size and tokens": [one and three_decimals(one["predicted"]) for one in chained],
            "its 90 %": [one and _ends(one) for one in chained],
            "its error %": [one and signed_percent(one["relative_error"]) for one in chained],
        }
    names = [label(f"{row['task']}, {row['metric']}, {row['model']}", row["variant"]) for row in data]
    sentences = [f"{name}: {row['reason']}." for name, row in zip(names, data, strict=True) if row["reason"]]
    if errors := [abs(row["relative_error"]) for row in data if row["relative_error"] is not None]:
        sentences.insert(0, f"Mean size of the relative error: {100 * sum(errors) / len(errors):.1f} %.")
    table = TextTable.of_columns(f"Scores predicted from {args.fit_models}", columns)
    return Answer(data=data, parts=[table, *sentences], result=results)


def _ends(row: dict[str, Any]) -> str | None:
    return None if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"

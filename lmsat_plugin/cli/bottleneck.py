"""``lmsat bottleneck``: the rank that the LM head needs, from results of ``lmsat_rank_head``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_data, read_results
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import read_file, user_path
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    import numpy as np

_CURVES = {"trained": "trained heads", "weighted": "weighted truncation", "truncated": "truncation"}
_MORE = {
    "hidden_size": "width",
    "corpus_dimension": "corpus' dimensions",
    "corpus_w_error_at_hidden_size": "corpus' W-error at width",
    "suppressed_norm_share": "suppressed norm",
}


class BottleneckCommand(AnsweringCommand):
    """Find the rank that the LM head needs for a loss close to the full one, and the dimensions that the corpus needs.

    Reads the results of lmsat_rank_head, of every model and checkpoint. The tables show the loss at each rank, the
    W-error of the model's own head at that rank (Godey et al. 2024, Fig. 8) and the bound of the gap; the rank needed,
    with its interval by a bootstrap over documents; and the W-error of the corpus' n-gram model at the model's width.
    Where tasks of lm-eval were run with head_rank=R or head=FILE, and with the whole head, their accuracies are shown.
    """

    name = "bottleneck"
    help = "the rank that the LM head needs"
    examples = ("lmsat bottleneck results/", "lmsat bottleneck results/ --figure rank.png")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the results, the tolerance, the curve and the n-gram model."""
        add_data(parser)
        parser.add_argument(
            "--within",
            type=float,
            default=1.0,
            metavar="PERCENT",
            help="a loss is close to the full one if it is no more than this above it (default: 1)",
        )
        parser.add_argument(
            "--curve",
            choices=_CURVES,
            help="the losses of heads trained at their rank, or truncated, in the states' metric (weighted) or as they "
            "are; by default the first of these that was measured",
        )
        parser.add_argument("--ngram", type=Path, metavar="FILE.json", help="the n-gram model, from lmsat ngram --json")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the losses and accuracies by head rank, and the rank needed."""
        from lmsat_plugin.analysis.rank_needed import find_rank_needed

        corpus_w_error = None if args.ngram is None else _read_ngram(args.ngram)
        results = find_rank_needed(read_results(args), args.curve, args.within / 100, corpus_w_error)
        values = [result.values for result in results]
        return Answer(data=values, parts=_parts(values), result=results)


def _read_ngram(path: Path) -> np.ndarray:
    """Return the W-error by dimension that ``lmsat ngram --json`` wrote."""
    import numpy as np

    try:
        w_error = np.array(json.loads(read_file(user_path(path)))["w_error"], dtype=np.float64)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise LmsatError(
            f"--ngram={path} has no W-errors ({first_sentence(error)}): give what lmsat ngram --json prints"
        ) from error
    if w_error.ndim != 1 or not np.isfinite(w_error).all():
        raise LmsatError(f"--ngram={path} has W-errors that are not numbers: give what lmsat ngram --json prints")
    return w_error


def _parts(results: Sequence[dict[str, Any]]) -> Iterator[TextTable]:
    names = {
        **{"rank": "rank", "w_error": "W-error", "loss": "loss"},
        **{"gap": "gap", "gap_stderr": "±", "bound": "bound"},
    }
    measured = [result for result in results if result["ranks"]]
    for result in measured:
        rows = [[row[key] for key in names] for row in result["ranks"]]
        title = f"{_name(result)}, {result['revision']}, on {result['corpus']}: {_CURVES[result['curve']]}"
        yield TextTable(title, list(names.values()), rows)
    downstream = {
        (_name(result), result["revision"]): result["downstream"] for result in results if result["downstream"]
    }
    for (model, revision), accuracies in downstream.items():
        rows = [
            [
                *(label(row["task"], row["variant"]), row["metric"], _CURVES.get(row["curve"], "own")),
                *(row[key] for key in ("rank", "value", "stderr")),
            ]
            for row in accuracies
        ]
        columns = ["task", "metric", "head", "rank", "accuracy", "±"]
        yield TextTable(f"{model}, {revision}: accuracy by rank", columns, rows)
    if measured:
        yield _needed(measured)


def _needed(results: Sequence[dict[str, Any]]) -> TextTable:
    columns: dict[str, list[Any]] = {
        "model": [_name(result) for result in results],
        "step": [result["revision"] if result["step"] is None else result["step"] for result in results],
        **{name: [result[name] for result in results] for name in ("corpus", "curve")},
        "full loss": [result["full_loss"] for result in results],
        "rank": [_rank(result["rank_needed"], result) for result in results],
        "90 % interval": [_interval(result) for result in results],
        **{name: [result[key] for result in results] for key, name in _MORE.items()},
    }
    known = {name: cells for name, cells in columns.items() if set(cells) - {None}}
    title = f"Rank needed for a loss within {100 * results[0]['within']:g} % of the full one"
    return TextTable.of_columns(title, known)


def _name(result: dict[str, Any]) -> str:
    return label(result["model"], result["variant"])


def _rank(rank: float | None, result: dict[str, Any]) -> str:
    """Return a rank for people, as a bound where it lies beyond the ranks that were measured."""
    lowest, highest = (result["ranks"][index]["rank"] for index in (0, -1))
    if rank is None:
        return f"> {highest}"
    return f"≤ {lowest}" if rank == lowest else f"{rank:.1f}"


def _interval(result: dict[str, Any]) -> str | None:
    ends = result["rank_low"], result["rank_high"]
    return None if ends == (None, None) else " to ".join(_rank(end, result) for end in ends)

"""``lmsat bottleneck``: the rank that the LM head needs, from results of ``lmsat_rank_head``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    import numpy as np

_CURVES = {"trained": "trained heads", "weighted": "weighted truncation", "truncated": "truncation"}
_MORE = {
    "hidden_size": "width",
    "corpus_dimension": "corpus' dimensions",
    "corpus_w_error_at_hidden_size": "corpus' W-error at width",
    "suppressed_norm_share": "suppressed norm",
}


class BottleneckCommand(AnsweringCommand):
    """Say which rank the LM head needs for a loss close to the full one, and how many dimensions the corpus asks for.

    Reads what lmsat_rank_head has left, of every model and checkpoint: the loss at each rank beside the W-error of
    the model's own head (Godey et al. 2024, Fig. 8) and the bound of the gap; the rank needed, with the interval
    that a bootstrap over documents gives; the W-error of the corpus' n-gram model at the model's width. Beside them
    stand the accuracies of lm-eval's tasks that were run with head_rank=R, or head=FILE, and with the whole head.
    """

    name = "bottleneck"
    help = "the rank that the LM head needs"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the results, the tolerance, the curve and the n-gram model."""
        parser.add_argument("data", metavar="DATA", help="a folder with result files, or one file")
        parser.add_argument(
            "--within",
            type=float,
            default=1.0,
            metavar="PERCENT",
            help="how far above the full loss is close to it, in per cent (default: 1)",
        )
        parser.add_argument(
            "--curve",
            choices=_CURVES,
            help="heads trained at their rank, or truncated, in the states' metric (weighted) or as they are; by "
            "default the first of these that was measured",
        )
        parser.add_argument(
            "--ngram", type=Path, metavar="FILE.json", help="the n-gram model, from lmsat ngram --json"
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the losses and accuracies by head rank, and the rank needed."""
        from lmsat_plugin.analysis.rank_needed import find_rank_needed
        from lmsat_plugin.results.tree import Results

        corpus_w_error = None if args.ngram is None else _read_ngram(args.ngram)
        found = find_rank_needed(Results.read(args.data), args.curve, args.within / 100, corpus_w_error)
        values = [one.values for one in found]

        def draw() -> Any:
            from lmsat_plugin.figures.plot import plot

            return plot(found)

        return Answer(values, _parts(values), draw)


def _read_ngram(path: Path) -> np.ndarray:
    """Return the W-error by dimension that ``lmsat ngram --json`` wrote."""
    import numpy as np

    try:
        found = np.array(json.loads(path.expanduser().read_bytes())["w_error"], dtype=np.float64)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise LmsatError(
            f"--ngram={path} has no W-errors ({first_sentence(error)}): give what lmsat ngram --json prints"
        ) from error
    if found.ndim != 1 or not np.isfinite(found).all():
        raise LmsatError(
            f"--ngram={path} has W-errors that are no numbers: give what lmsat ngram --json prints"
        )
    return found


def _parts(found: Sequence[dict[str, Any]]) -> Iterator[TextTable]:
    names = {
        "rank": "rank",
        "w_error": "W-error",
        "loss": "loss",
        "gap": "gap",
        "gap_stderr": "±",
        "bound": "bound",
    }
    measured = [one for one in found if one["ranks"]]
    for one in measured:
        rows = [[_cell(rank[key]) for key in names] for rank in one["ranks"]]
        title = f"{_name(one)}, {one['revision']}, on {one['corpus']}: {_CURVES[one['curve']]}"
        yield TextTable(title, list(names.values()), rows)
    by_checkpoint = {(_name(one), one["revision"]): one["downstream"] for one in found if one["downstream"]}
    for (model, revision), downstream in by_checkpoint.items():
        rows = [
            [
                *(label(one["task"], one["variant"]), one["metric"], _CURVES.get(one["curve"], "own")),
                *(_cell(one[key]) for key in ("rank", "value", "stderr")),
            ]
            for one in downstream
        ]
        columns = ["task", "metric", "head", "rank", "accuracy", "±"]
        yield TextTable(f"{model}, {revision}: accuracy by rank", columns, rows)
    if measured:
        yield _needed(measured)


def _needed(found: Sequence[dict[str, Any]]) -> TextTable:
    columns: dict[str, list[Any]] = {"model": [_name(one) for one in found]}
    columns["step"] = [one["revision"] if one["step"] is None else one["step"] for one in found]
    columns |= {name: [_cell(one[name]) for one in found] for name in ("corpus", "curve")}
    columns["full loss"] = [one["full_loss"] for one in found]
    columns["rank"] = [_rank(one["rank_needed"], one) for one in found]
    columns["90 % interval"] = [_interval(one) for one in found]
    for key, name in _MORE.items():
        columns[name] = [_cell(one[key]) for one in found]
    columns = {name: cells for name, cells in columns.items() if set(cells) != {""}}
    title = f"Rank needed for a loss within {100 * found[0]['within']:g} % of the full one"
    return TextTable(title, list(columns), list(zip(*columns.values(), strict=True)))


def _name(one: dict[str, Any]) -> str:
    return label(one["model"], one["variant"])


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _rank(rank: float | None, one: dict[str, Any]) -> str:
    """Return a rank for people; what lies beyond the ranks measured is only known to do so."""
    lowest, highest = (one["ranks"][index]["rank"] for index in (0, -1))
    if rank is None:
        return f"> {highest}"
    return f"≤ {lowest}" if rank == lowest else f"{rank:.1f}"


def _interval(one: dict[str, Any]) -> str:
    ends = one["rank_low"], one["rank_high"]
    return "" if ends == (None, None) else " to ".join(_rank(end, one) for end in ends)

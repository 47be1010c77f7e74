"""``lmsat bottleneck``: the rank that the LM head needs, from results of ``lmsat_rank_head``."""

from __future__ import annotations

import json
import logging
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.tables import print_table
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.report.rank_results import HEADS

if TYPE_CHECKING:
    import argparse

    import numpy as np
    import pandas as pd

    from lmsat_plugin.report.rank_results import Accuracy, Checkpoint

logger = logging.getLogger(__name__)

_MORE = {
    "hidden_size": "width",
    "corpus_dimension": "corpus' dimensions",
    "corpus_w_error_at_hidden_size": "corpus' W-error at width",
    "suppressed_norm_share": "suppressed norm",
}


class Bottleneck(Command):
    """Say which rank the LM head needs for a loss close to the full one, and how many dimensions the corpus asks for.

    Reads what lmsat_rank_head has left, of every model and checkpoint: the loss at each rank beside the W-error of
    the model's own head (Godey et al. 2024, Fig. 8) and the bound of the gap; the rank needed, with the interval
    that a bootstrap over documents gives; the W-error of the corpus' n-gram model at the model's width. Beside them
    stand the accuracies of lm-eval's tasks that were run with head_rank=R, or head=FILE, and with the whole head.
    """

    name = "bottleneck"
    help = "the rank that the LM head needs"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
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
            choices=HEADS,
            help="heads trained at their rank, or truncated, in the states' metric (weighted) or as they are; by "
            "default the first of these that was measured",
        )
        parser.add_argument(
            "--ngram", type=Path, metavar="FILE.json", help="the n-gram model, from lmsat ngram --json"
        )
        parser.add_argument(
            "--figure",
            type=Path,
            metavar="FILE",
            help="draw loss and accuracy against the rank into a file, whose name ends in .png, .svg or .pdf",
        )
        parser.add_argument("--json", action="store_true", help="print JSON, `within` as a share")

    def run(self, args: argparse.Namespace) -> None:
        """Print the tables, and draw the figure."""
        from lmsat_plugin.harness.results import load_results
        from lmsat_plugin.report import rank_results as results

        if args.figure is not None:
            from lmsat_plugin.report.figures import check_suffix

            check_suffix(args.figure)
        of_corpus = None if args.ngram is None else _read_ngram(args.ngram)
        table, root = load_results(args.data), Path(args.data).expanduser()
        runs = results.read_runs(table, root)
        accuracies = results.accuracies_by_rank(table, runs)
        found: list[_Found] = []
        skipped = []
        for row in _full_losses(table):
            if row["path"] not in runs:
                continue
            file, checkpoint = results.file_of(row["path"], root), runs[row["path"]].checkpoint
            try:
                arrays = results.read_arrays(file)
                measured = _measure(row, arrays, table, args.curve, args.within / 100, of_corpus)
            except LmsatError as error:
                skipped.append(LmsatError(f"{file}: {error}"))
                continue
            facts = _facts(row, accuracies.get(checkpoint, []), **measured)
            next_token = results.next_token_accuracies(table, row["path"], row["corpus"])
            found.append(_Found(checkpoint, facts, arrays, next_token))
        measured_ones = {one.checkpoint for one in found}
        for checkpoint, its in accuracies.items():
            if checkpoint not in measured_ones:
                facts = _facts(results.facts_of(checkpoint, table, runs), its)
                found.append(_Found(checkpoint, facts))
        if not found:
            raise (
                skipped[0]
                if skipped
                else LmsatError(
                    f"{args.data} holds no results of lmsat_rank_head: measure them with "
                    "lm_eval --model lmsat --tasks lmsat_rank_head and arrays=FOLDER in --model_args, or in a sweep"
                )
            )
        for reason in skipped:
            logger.warning("Left out: %s", reason)
        if args.figure is not None:
            _draw(args.figure, found)
        if args.json:
            print(json.dumps([one.facts for one in found], indent=2, allow_nan=False))
        else:
            _print([one.facts for one in found])


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found of one checkpoint, on one corpus if the losses at each rank are known."""

    checkpoint: Checkpoint
    facts: dict[str, Any]
    """Plain data, as --json prints it."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    next_token: list[Accuracy] = field(default_factory=list)


def _full_losses(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of the table of which each stands for a result of lmsat_rank_head."""
    import pandas as pd

    rows = table[(table.task == "lmsat_rank_head") & (table.metric == "full_loss")]
    return [
        {str(key): None if pd.isna(value) else value for key, value in record.items()}
        for record in rows.to_dict("records")
    ]


def _measure(
    row: dict[str, Any],
    arrays: dict[str, np.ndarray],
    table: pd.DataFrame,
    name: str | None,
    within: float,
    of_corpus: np.ndarray | None,
) -> dict[str, Any]:
    """Return what there is to say of the losses of one checkpoint on one corpus, as plain data."""
    import numpy as np

    from lmsat_plugin.analysis.bottleneck import Capacity, RankCurve, by_rank, capacity, rank_needed

    curve = RankCurve.from_arrays(arrays, name)
    if "rank_head/singular_values" not in arrays:
        raise LmsatError("the arrays lack rank_head/singular_values: run lmsat_rank_head again")
    ranks = by_rank(curve, arrays["rank_head/singular_values"])
    needed = rank_needed(curve, within)
    of_corpus = arrays.get("ngram/w_error") if of_corpus is None else of_corpus
    room = Capacity(None, None, None)
    if of_corpus is not None and row["hidden_size"] is not None:
        room = capacity(of_corpus, row["hidden_size"])
    return {
        "corpus": row["corpus"],
        "curve": curve.name,
        "full_loss": curve.full_loss,
        "within": within,
        "rank_needed": needed.rank,
        "rank_low": needed.low,
        "rank_high": needed.high,
        "ranks": ranks.astype(object).where(np.isfinite(ranks), None).to_dict("records"),
        "corpus_dimension": room.dimension,
        "corpus_w_error_at_hidden_size": _finite(room.w_error_at_hidden_size),
        "suppressed_norm_share": _finite(_suppressed(row, table)),
    }


def _facts(checkpoint: dict[str, Any], accuracies: list[Accuracy], **measured: Any) -> dict[str, Any]:
    """Return what there is to say of one checkpoint; None and [] stand for what was not measured."""
    return {
        **{key: checkpoint[key] for key in ("model", "revision", "step")},
        **dict.fromkeys(("corpus", "curve", "full_loss", "within", "rank_needed", "rank_low", "rank_high")),
        "hidden_size": checkpoint["hidden_size"],
        "ranks": [],
        **dict.fromkeys(("corpus_dimension", "corpus_w_error_at_hidden_size", "suppressed_norm_share")),
        **measured,
        "downstream": [{**asdict(one), "stderr": _finite(one.stderr)} for one in accuracies],
    }


def _draw(file: Path, found: list[_Found]) -> None:
    """Write the figure of the losses, of every curve there is, and of the accuracies."""
    import pandas as pd

    from lmsat_plugin.analysis.bottleneck import CURVES, RankCurve, by_rank
    from lmsat_plugin.report.figures import ACCURACIES, LOSSES, rank_figure, write_figure

    facts = [one.facts for one in found]
    losses: list[dict[str, Any]] = []
    accuracies: list[dict[str, Any]] = []
    for one in found:
        label = _label(one.facts, facts, "revision", "corpus")
        first = one.facts["curve"]
        for name in (first, *(name for name in CURVES if name != first)) if first else ():
            with suppress(LmsatError):
                curve = RankCurve.from_arrays(one.arrays, name)
                ranks = by_rank(curve, one.arrays["rank_head/singular_values"])
                shared = {"model": label, "curve": name, "full_loss": curve.full_loss}
                losses += [{**shared, **rank} for rank in ranks.to_dict("records")]
        accuracies += [{"model": label, **asdict(accuracy)} for accuracy in one.next_token]
        label = _label(one.facts, facts, "revision")
        accuracies += [{"model": label, **accuracy} for accuracy in one.facts["downstream"]]
    figure = rank_figure(
        pd.DataFrame(losses, columns=LOSSES),
        pd.DataFrame(accuracies, columns=ACCURACIES)
        .astype({"rank": float, "stderr": float})
        .drop_duplicates(),
    )
    write_figure(figure, file)


def _label(one: dict[str, Any], found: list[dict[str, Any]], *keys: str) -> str:
    """Return a model's name with those of the keys in which results of the model differ."""
    alike = [other for other in found if other["model"] == one["model"]]
    differing = [key for key in keys if len({other[key] for other in alike}) > 1 and one[key] is not None]
    return ", ".join([one["model"], *(one[key] for key in differing)])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _suppressed(row: dict[str, Any], table: pd.DataFrame) -> float | None:
    """Return what lmsat_gradient_bottleneck found for the checkpoint, on the same corpus if with other settings."""
    rows = table[(table.task == "lmsat_gradient_bottleneck") & (table.metric == "suppressed_norm_share")]
    rows = rows[(rows.model == row["model"]) & (rows.revision == row["revision"])]
    by_corpus = dict(zip(rows.corpus, rows.value, strict=True))
    # Settings that tell results apart stand in parentheses behind the corpus' name.
    name = str(row["corpus"]).partition(" (")[0]
    alike = (value for corpus, value in by_corpus.items() if str(corpus).partition(" (")[0] == name)
    return by_corpus.get(row["corpus"], next(alike, None))


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


def _print(found: list[dict[str, Any]]) -> None:
    from rich.markup import escape

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
        print_table(
            escape(f"{one['model']}, {one['revision']}, on {one['corpus']}: {HEADS[one['curve']]}"),
            list(names.values()),
            [[_cell(rank[key]) for key in names] for rank in one["ranks"]],
        )
    for (model, revision), downstream in {
        (one["model"], one["revision"]): one["downstream"] for one in found if one["downstream"]
    }.items():
        print_table(
            escape(f"{model}, {revision}: accuracy by rank"),
            ["task", "metric", "head", "rank", "accuracy", "±"],
            [
                [
                    *(one["task"], one["metric"], HEADS.get(one["curve"], "own")),
                    *(_cell(one[key]) for key in ("rank", "value", "stderr")),
                ]
                for one in downstream
            ],
        )
    if measured:
        _print_needed(measured)


def _print_needed(found: list[dict[str, Any]]) -> None:
    columns = {name: [_cell(one[name]) for one in found] for name in ("model", "step", "corpus", "curve")}
    columns["step"] = [one["revision"] if one["step"] is None else one["step"] for one in found]
    columns["full loss"] = [one["full_loss"] for one in found]
    columns["rank"] = [_rank(one["rank_needed"], one) for one in found]
    columns["90 % interval"] = [_interval(one) for one in found]
    for key, name in _MORE.items():
        columns[name] = [_cell(one[key]) for one in found]
    columns = {name: cells for name, cells in columns.items() if set(cells) != {""}}
    title = f"Rank needed for a loss within {100 * found[0]['within']:g} % of the full one"
    print_table(title, list(columns), list(zip(*columns.values(), strict=True)))


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

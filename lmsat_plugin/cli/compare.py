"""``lmsat compare``: whether one model is better than another, or the difference is that of the sample."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_choice, add_steps, read_folder
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import kind_of, user_path

if TYPE_CHECKING:
    from lmsat_plugin.analysis.comparison import Comparison, PairComparison
    from lmsat_plugin.results.tree import Results


class CompareCommand(AnsweringCommand):
    """Compare models with the first of them: is the difference real?

    Each difference has its 95 % interval, its p, corrected by Holm for the number of metrics, and the smallest
    difference that these data would have shown with a power of 80 %. Where results keep the losses by document
    (arrays=DIR, or a sweep) or the scores by question (--log_samples), models are compared document by document and
    question by question, and questions about one passage are taken together. Of several runs of a model, how they
    differ counts. Of two tokenizers, bits per byte are compared. What was measured with different settings is named and
    not compared. Beside the metrics stand the tokens that each model needs to reach the same loss, and the geometry.
    """

    name = "compare"
    help = "is one model better than another, or is it noise"
    examples = (
        "lmsat compare results/pythia-70m results/pythia-160m",
        "lmsat compare pythia-160m@step100000 pythia-160m@step143000 --results results/",
    )
    has_figure = False

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the models, and where their results are."""
        parser.add_argument(
            "models",
            nargs="+",
            metavar="A B",
            help="folders with the results of one model each, or with --results names of models; A@REVISION is one "
            "checkpoint; more than two are each compared with the first",
        )
        parser.add_argument("--results", metavar="DIR", help="a folder with the results of all models")
        parser.add_argument(
            "--at",
            choices=("end", "tokens", "compute"),
            default="end",
            help="which checkpoints are compared: each model's last one, or the last ones at equal tokens or equal "
            "compute, 6 n_params tokens (default: end)",
        )
        add_choice(parser, ("task", "metric"))
        add_steps(parser)

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the comparison."""
        from lmsat_plugin.analysis.comparison import compare

        read: dict[str, Results] = {}
        comparison = compare(*(_given(args, name, read) for name in args.models), at=args.at)
        return Answer(data=comparison.to_dict(), parts=_parts(comparison))


def _given(args: argparse.Namespace, name: str, read: dict[str, Results]) -> Results | tuple[Results, str]:
    """Return the results that a name means, each folder read once, and the name of a model in them."""
    if args.results is not None:
        return _results(args, args.results, read), name
    if kind_of(user_path(name)) is not None:
        return _results(args, name, read)
    folder, separator, revision = name.rpartition("@")
    if separator and kind_of(user_path(folder)) is not None:
        from lmsat_plugin.analysis.comparison.contenders import find_contender

        results = _results(args, folder, read)
        return results, f"{find_contender(results).name}@{revision}"
    raise LmsatError(f"{name} is neither a folder nor a file: give one with results, or name models with --results DIR")


def _results(args: argparse.Namespace, folder: str, read: dict[str, Results]) -> Results:
    if folder not in read:
        read[folder] = read_folder(args, folder)
    return read[folder]


def _parts(comparison: Comparison) -> Iterator[TextTable | str]:
    from lmsat_plugin.analysis.comparison.sentences import sentence_on_tokens

    yield comparison.sentence
    for pair in comparison.pairs:
        places = {
            name: ", ".join(one.place if len(own) == 1 else f"{one.run} at {one.place}" for one in own)
            for name in (pair.reference, pair.model)
            if (own := [one for one in pair.checkpoints if one.model == name])
        }
        yield f"Compared: {'; '.join(f'{name}, {place}' for name, place in places.items())}."
        if pair.metrics:
            yield _table(pair)
        yield from dict.fromkeys(f"{row.task} {row.metric}: {row.reason}." for row in pair.metrics if row.reason)
        if pair.tokens_to_loss is not None:
            yield sentence_on_tokens(pair.tokens_to_loss)
        if pair.geometry:
            rows = [[values[name] for name in ("task", "metric", "a", "b")] for values in pair.geometry]
            yield TextTable("Geometry", ["task", "metric", pair.reference, pair.model], rows)
        yield from dict.fromkeys(
            f"{values['task']}: {values['reason']}." for values in pair.geometry if values["reason"]
        )
        yield from pair.notes


def _table(pair: PairComparison) -> TextTable:
    rows = pair.metrics
    differing: list[tuple[str, list[Any]]] = [
        ("corpus", [row.corpus for row in rows]),
        ("n-shot", [row.num_fewshot for row in rows]),
        ("filter", [row.filter for row in rows]),
    ]
    # A list: models may have any names, those of columns too.
    columns: list[tuple[str, list[Any]]] = [
        ("task", [row.task for row in rows]),
        ("metric", [row.metric for row in rows]),
        *((name, cells) for name, cells in differing if len(set(cells)) > 1),
        (pair.reference, [row.a for row in rows]),
        (pair.model, [row.b for row in rows]),
        ("difference", [row.difference for row in rows]),
        ("95 % interval", [None if row.low is None else f"{row.low:.3g} to {row.high:.3g}" for row in rows]),
        ("p", [row.p for row in rows]),
        ("better", [row.better for row in rows]),
        ("detectable", [row.mde for row in rows]),
        ("n", [row.n for row in rows]),
        ("paired by", [row.unit for row in rows]),
    ]
    names, cells = zip(*columns, strict=True)
    return TextTable(f"{pair.model} against {pair.reference}", names, list(zip(*cells, strict=True)))

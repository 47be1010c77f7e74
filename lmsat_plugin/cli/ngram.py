"""``lmsat ngram``: how many dimensions a corpus' next-token distributions take up."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import write_atomically
from lmsat_plugin.outside_text import show
from lmsat_plugin.settings import parse_settings

if TYPE_CHECKING:
    from lmsat_plugin.ngrams.corpus import CorpusNgrams
    from lmsat_plugin.ngrams.documents import NgramSettings

_SET_BY_CONFIG = ("corpus", "tokenizer", "order", "max_tokens", "output")


class NgramCommand(AnsweringCommand):
    """Measure the n-gram dimension of a corpus under a tokenizer (Godey et al. 2024, Sec. 5.1, Fig. 7).

    W has a row for each context of n - 1 tokens: the relative frequencies of the tokens that follow it. The W-error at
    a dimension d is what the best matrix of rank d leaves of W, in the Frobenius norm, as a share between 1 and 0.
    """

    name = "ngram"
    help = "the dimensions that a corpus asks for"
    examples = (
        "lmsat ngram sample --tokenizer EleutherAI/pythia-70m",
        "lmsat ngram text.jsonl --tokenizer runs/my-model/step1000 --order 3 --output text.json",
        "lmsat ngram --config configs/godey-fig7.yaml",
    )
    has_figure = False
    has_output = False
    json_indent = None

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the corpus, the tokenizer, what to compute, and where the results go."""
        parser.add_argument("corpus", nargs="?", metavar="CORPUS", help="sample, a file, a folder, or a named corpus")
        parser.add_argument("--tokenizer", metavar="T", help="a folder, or a name on the Hub")
        parser.add_argument("--order", type=int, metavar="N", help="tokens of an n-gram (default: 5)")
        parser.add_argument("--weighted", action="store_true", help="count a context as often as it occurs")
        parser.add_argument(
            "--dimensions",
            type=int,
            metavar="K",
            help="the least number of dimensions to compute, where all are too many (default: 1000)",
        )
        parser.add_argument("--exact", action="store_true", help="compute all dimensions, however many")
        parser.add_argument("--max-tokens", type=int, metavar="N", help="stop after so many tokens")
        parser.add_argument("--text-field", metavar="NAME", help="the column or key of the text")
        parser.add_argument("--temporary", type=Path, metavar="FOLDER", help="where the counts of a large corpus go")
        parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON to a file")
        parser.add_argument(
            "--config", type=Path, metavar="FILE.yaml", help="corpora, tokenizers, order, max_tokens, output"
        )

    def run(self, args: argparse.Namespace) -> None:
        """Measure one corpus and print the answer, or measure all pairs of a configuration."""
        if args.config is None:
            super().run(args)
        elif args.format != "table":
            raise LmsatError(f"'{args.format}' does not go with --config, which writes JSON files: leave one out")
        else:
            _measure_pairs(args)

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the W-error by dimension of one corpus under one tokenizer."""
        from lmsat_plugin.ngrams.corpus import measure_corpus
        from lmsat_plugin.plugins import plugins
        from lmsat_plugin.text.corpora import CorpusSettings

        if args.corpus is None or args.tokenizer is None:
            raise LmsatError("name a corpus and a tokenizer, as in `lmsat ngram sample --tokenizer T`, or a --config")
        corpus = parse_settings(
            CorpusSettings, {"corpus": args.corpus, "max_tokens": args.max_tokens, "text_field": args.text_field}
        )
        ngrams = measure_corpus(
            corpus, args.tokenizer, _settings(args), sources=plugins().corpora, temporary=args.temporary
        )
        data = ngrams.to_dict()
        if args.output is not None:
            write_atomically(args.output, json.dumps(data).encode())
        return Answer(data=data, parts=_parts(ngrams))


def _settings(args: argparse.Namespace) -> NgramSettings:
    from lmsat_plugin.ngrams.documents import NgramSettings

    given = {"order": args.order, "dims": None if args.dimensions is None else [args.dimensions]}
    known = {key: value for key, value in given.items() if value is not None}
    return parse_settings(NgramSettings, {"weighted": args.weighted, "exact": args.exact, **known})


def _measure_pairs(args: argparse.Namespace) -> None:
    from lmsat_plugin.ngrams.corpus import PairsConfig, measure_pairs
    from lmsat_plugin.plugins import plugins
    from lmsat_plugin.yaml_files import read_config

    if given := [name for name in _SET_BY_CONFIG if getattr(args, name) not in (None, False)]:
        raise LmsatError(f"'{given[0]}' does not go with --config: set it in {args.config}, or leave one out")
    pairs = measure_pairs(
        read_config(args.config, PairsConfig, others={"lmsat sweep": {"models", "tasks"}}),
        _settings(args),
        sources=plugins().corpora,
        text_field=args.text_field,
        temporary=args.temporary,
    )
    for path, new in pairs:
        show(f"{path}{'' if new else ' (there already)'}")


def _parts(ngrams: CorpusNgrams) -> Iterator[TextTable | str]:
    counts, spectrum = ngrams.counts, ngrams.spectrum
    known = len(spectrum.w_error)
    slack = "" if spectrum.whole else f"; the W-error may be less, by {spectrum.w_error_bound:.0e} at most"
    yield (
        f"{counts.order}-grams of {ngrams.corpus.corpus}: {counts.tokens:,} tokens, {counts.contexts:,} contexts{slack}"
    )
    powers = [1 << exponent for exponent in range(known.bit_length())]
    yield TextTable("W-error", ("dimension", "W-error"), [(d, float(spectrum.w_error[d - 1])) for d in powers])
    falls = {f"at most {threshold}": spectrum.dimension(threshold) for threshold in (0.5, 0.1, 0.01)}
    dimensions = [(text, dimension or f"more than {known:,}") for text, dimension in falls.items()]
    yield TextTable("Dimensions", ("W-error", "dimension"), dimensions)

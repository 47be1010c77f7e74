"""``lmsat ngram``: how many dimensions a corpus' next-token distributions take up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.tables import print_table
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import write_atomically

if TYPE_CHECKING:
    import argparse

    from lmsat_plugin.ngrams.corpus import CorpusNgrams

_OF_CONFIG = ("corpus", "tokenizer", "order", "max_tokens", "output", "json")


class NgramCommand(Command):
    """Measure the n-gram dimension of a corpus under a tokenizer (Godey et al. 2024, Sec. 5.1, Fig. 7).

    lmsat ngram sample --tokenizer EleutherAI/pythia-70m
    lmsat ngram text.jsonl --tokenizer FOLDER --order 3 --json > text.json
    lmsat ngram --config configs/godey-fig7.yaml

    W has a row for each context of n - 1 tokens, the relative frequencies of its successors. Its W-error at a
    dimension d is what the best matrix of rank d leaves of it, in the Frobenius norm and between 1 and 0.
    """

    name = "ngram"
    help = "the dimensions that a corpus asks for"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the corpus, the tokenizer, what to compute, and where to put it."""
        parser.add_argument(
            "corpus", nargs="?", metavar="CORPUS", help="sample, a file, a folder, or a named corpus"
        )
        parser.add_argument("--tokenizer", metavar="T", help="a folder, or a name on the Hub")
        parser.add_argument("--order", type=int, metavar="N", help="tokens of an n-gram (default: 5)")
        parser.add_argument("--weighted", action="store_true", help="count a context as often as it occurs")
        parser.add_argument(
            "--dimensions",
            type=int,
            metavar="K",
            help="how many to know at least, where all are too many (default: 1000)",
        )
        parser.add_argument("--exact", action="store_true", help="all dimensions, however many there are")
        parser.add_argument("--max-tokens", type=int, metavar="N", help="stop after so many tokens")
        parser.add_argument("--text-field", metavar="NAME", help="the column or key of the text")
        parser.add_argument(
            "--temporary", type=Path, metavar="FOLDER", help="where the counts of a large corpus go"
        )
        parser.add_argument("--json", action="store_true", help="print JSON, all dimensions")
        parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON to a file")
        parser.add_argument(
            "--config", type=Path, metavar="FILE.yaml", help="corpora, tokenizers, order, max_tokens, output"
        )

    def run(self, args: argparse.Namespace) -> None:
        """Measure one pair and print it, or the pairs of a configuration."""
        from lmsat_plugin.ngrams.corpus import measure_corpus
        from lmsat_plugin.ngrams.dimension import NgramSettings
        from lmsat_plugin.ngrams.pairs import PairsConfig, measure_pairs
        from lmsat_plugin.plugins import plugins
        from lmsat_plugin.settings import parse_settings
        from lmsat_plugin.text.corpora import CorpusSettings
        from lmsat_plugin.yaml_files import read_config

        asked = {"order": args.order, "dims": None if args.dimensions is None else [args.dimensions]}
        settings = parse_settings(
            NgramSettings,
            {"weighted": args.weighted, "exact": args.exact}
            | {key: value for key, value in asked.items() if value is not None},
        )
        if args.config is not None:
            if given := [name for name in _OF_CONFIG if getattr(args, name) not in (None, False)]:
                raise LmsatError(
                    f"'{given[0]}' does not go with --config: set it in {args.config}, or leave one out"
                )
            pairs = measure_pairs(
                read_config(args.config, PairsConfig),
                settings,
                sources=plugins().corpora,
                text_field=args.text_field,
                temporary=args.temporary,
            )
            for path, new in pairs:
                print(f"{path}{'' if new else ' (there already)'}", flush=True)
            return
        if args.corpus is None or args.tokenizer is None:
            raise LmsatError(
                "name a corpus and a tokenizer, as in `lmsat ngram sample --tokenizer T`, or a --config"
            )
        corpus = parse_settings(
            CorpusSettings,
            {"corpus": args.corpus, "max_tokens": args.max_tokens, "text_field": args.text_field},
        )
        found = measure_corpus(
            corpus, args.tokenizer, settings, sources=plugins().corpora, temporary=args.temporary
        )
        text = json.dumps(found.to_dict())
        if args.output is not None:
            write_atomically(args.output, text.encode())
        if args.json:
            print(text)
        else:
            _print(found)


def _print(found: CorpusNgrams) -> None:
    counts, spectrum = found.counts, found.spectrum
    known = len(spectrum.w_error)
    slack = "" if spectrum.whole else f"; the W-error may be less, by {spectrum.w_error_bound:.0e} at most"
    print(
        f"{counts.order}-grams of {found.corpus.corpus}: {counts.tokens:,} tokens, {counts.contexts:,} contexts{slack}",
        flush=True,
    )
    powers = [1 << exponent for exponent in range(known.bit_length())]
    rows = [(d, float(spectrum.w_error[d - 1])) for d in powers]
    print_table("W-error", ("dimension", "W-error"), rows)
    falls = [(f"at most {threshold}", spectrum.dimension(threshold)) for threshold in (0.5, 0.1, 0.01)]
    print_table(
        "Dimensions",
        ("W-error", "dimension"),
        [(text, dimension or f"more than {known:,}") for text, dimension in falls],
    )

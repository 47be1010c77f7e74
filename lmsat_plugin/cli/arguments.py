"""Arguments that several commands share: what is read, and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    import pandas as pd

    from lmsat_plugin.results.tree import Results


def add_data(parser: argparse.ArgumentParser, help_: str) -> None:
    """Add the data of an analysis, and how to read it."""
    parser.add_argument("data", metavar="DATA", help=help_)
    parser.add_argument(
        "--corpus",
        action="append",
        metavar="NAME",
        help="only what was measured on this corpus, and what was measured on none; may be given several times",
    )
    add_variant(parser)
    add_steps(parser)


def add_tree(parser: argparse.ArgumentParser) -> None:
    """Add a folder of results on one corpus, and how to read it."""
    parser.add_argument("folder", metavar="DIR", help="a folder with result files, or one file")
    parser.add_argument(
        "--corpus",
        metavar="NAME",
        help="only what was measured on this corpus, and what was measured on none",
    )
    add_variant(parser)
    add_steps(parser)


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a variant."""
    parser.add_argument(
        "--variant",
        metavar="KEY=VALUE",
        help="only this variant, as the column variant of `lmsat results` names it",
    )


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Add where results say steps and tokens."""
    parser.add_argument(
        "--step-pattern", metavar="RE", help="where names state the step: (?P<step>...), (?P<tokens>...)"
    )
    parser.add_argument("--tokens-per-step", type=int, metavar="N", help="tokens in a training step")


def read_tree(args: argparse.Namespace, folder: str | Path) -> Results:
    """Return the results in a folder or a file. Raises `LmsatError` if there are none."""
    from lmsat_plugin.results.tree import Results

    return Results.read(folder, step_pattern=args.step_pattern, tokens_per_step=args.tokens_per_step)


def read_data(args: argparse.Namespace, data: str | None = None) -> Results | pd.DataFrame:
    """Return the results in a folder or a result file, or the rows of a ``.csv`` file.

    ``data`` is what is to be read, by default what `add_data` has added. The corpora come in the order in which
    they were named.

    Raises:
        LmsatError: For what is neither, and for a corpus or a variant that is not there.
    """
    path = Path(args.data if data is None else data).expanduser()
    if path.suffix.lower() != ".csv":
        results = read_tree(args, path)
        if args.corpus is None and args.variant is None:
            return results
        return results.select(args.corpus, args.variant)
    from lmsat_plugin.analysis.tables import of_corpora, of_variant, read_csv

    table = read_csv(path)
    if args.corpus is not None:
        table = of_corpora(table, args.corpus, path)
    return table if args.variant is None else of_variant(table, args.variant, path)

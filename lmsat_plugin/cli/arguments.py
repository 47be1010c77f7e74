"""Arguments that several commands share: which results to read, and which of them to take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import user_path

if TYPE_CHECKING:
    import pandas as pd

    from lmsat_plugin.results.tree import Results

_FOLDER = "a folder with result files, or one file"
_CORPUS = "take only what was measured on this corpus, and what was measured on none"


def add_data(parser: argparse.ArgumentParser, help_: str = _FOLDER) -> None:
    """Add the data of an analysis, and which of them to take."""
    parser.add_argument("data", metavar="DATA", help=help_)
    parser.add_argument("--corpus", action="append", metavar="NAME", help=f"{_CORPUS}; may be given several times")
    _add_variant(parser)
    add_steps(parser)


def add_tree(parser: argparse.ArgumentParser) -> None:
    """Add a folder of results, and which of them to take: those on one corpus."""
    add_folder(parser)
    parser.add_argument("--corpus", metavar="NAME", help=_CORPUS)
    _add_variant(parser)
    add_steps(parser)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add a folder of results."""
    parser.add_argument("folder", metavar="DIR", help=_FOLDER)


def _add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variant",
        metavar="KEY=VALUE",
        help="take only this variant, as the column variant of `lmsat results` names it",
    )


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Add how steps and tokens follow from names."""
    parser.add_argument(
        "--step-pattern",
        metavar="RE",
        help="where names of your own state the place in training: (?P<step>...), (?P<tokens>...), (?P<words>...), "
        "(?P<stage>...), (?P<run>...)",
    )
    parser.add_argument(
        "--tokens-per-step", type=int, metavar="N", help="tokens in a training step, where names state steps alone"
    )


def read_tree(args: argparse.Namespace, folder: str | Path) -> Results:
    """Return the results in a folder or a file. Raises `LmsatError` if there are none."""
    from lmsat_plugin.results.tree import Results

    return Results.read(folder, step_pattern=args.step_pattern, tokens_per_step=args.tokens_per_step)


def read_results(args: argparse.Namespace, path: Path | None = None) -> Results:
    """Return the results that `add_data` asks for.

    Raises:
        LmsatError: For a CSV, for a folder without results, and for a corpus or a variant that is not there.
    """
    path = user_path(args.data) if path is None else path
    if _is_csv(path):
        raise LmsatError(f"{path} is a table: give the folder of results, whose arrays are read")
    results = read_tree(args, path)
    if args.corpus is None and args.variant is None:
        return results
    return results.select(args.corpus, args.variant)


def read_data(args: argparse.Namespace, data: str | None = None) -> Results | pd.DataFrame:
    """Return the results that `add_data` asks for, or the rows of a ``.csv`` file.

    ``data`` is another path than the one of `add_data`. The corpora come in the order in which they were named.

    Raises:
        LmsatError: For a path that is neither, and for a corpus or a variant that is not there.
    """
    path = user_path(args.data if data is None else data)
    if not _is_csv(path):
        return read_results(args, path)
    from lmsat_plugin.analysis.input_tables import of_corpora, of_variant, read_csv

    table = read_csv(path)
    if args.corpus is not None:
        table = of_corpora(table, args.corpus, path)
    return table if args.variant is None else of_variant(table, args.variant, path)


def _is_csv(path: Path) -> bool:
    """Return whether a file is a table of the user's own, and not one that is read as results."""
    from lmsat_plugin.results.other_tools.tables import is_log

    return path.suffix.lower() == ".csv" and not is_log(path)

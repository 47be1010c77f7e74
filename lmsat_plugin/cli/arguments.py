"""Arguments that several commands share: which results to read, and which of them to take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import user_path

if TYPE_CHECKING:
    import pandas as pd

    from lmsat_plugin.results.tree import Results

FOLDERS = "folders with result files, or such files"
_LONGEST_WATCH = 10_000_000
"""Seconds."""
_NAMED = {"model": "models", "run": "runs", "task": "tasks", "metric": "metrics"}


def add_data(parser: argparse.ArgumentParser, help_: str = FOLDERS, names: Sequence[str] = ("model", "run")) -> None:
    """Add the data of an analysis, and which of them to take; ``names`` are the columns whose names are chosen."""
    parser.add_argument("data", nargs="+", metavar="DATA", help=help_)
    add_choice(parser, names)
    add_steps(parser)


def add_tree(parser: argparse.ArgumentParser, names: Sequence[str] = tuple(_NAMED)) -> None:
    """Add folders of results, and which of them to take."""
    parser.add_argument("data", nargs="+", metavar="DIR", help=FOLDERS)
    add_choice(parser, names)
    add_steps(parser)


def add_choice(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add which results to take; ``names`` are the columns whose names are chosen."""
    for name in names:
        add_pattern(parser, name)
    parser.set_defaults(chosen_names=names)
    parser.add_argument(
        "--corpus",
        action="append",
        metavar="GLOB",
        help="take only what was measured on corpora with such names, and what was measured on none; may be given "
        "several times",
    )
    parser.add_argument(
        "--variant",
        metavar="KEY=VALUE",
        help="take only this variant, as the column variant of `lmsat results` names it",
    )


def add_pattern(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option that chooses names of a column."""
    parser.add_argument(
        f"--{name}",
        action="append",
        metavar="GLOB",
        help=f"take only {_NAMED[name]} with such names; may be given several times",
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


def add_watch(parser: argparse.ArgumentParser, what: str) -> None:
    """Add that a command goes on with something until it is interrupted."""
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=30.0,
        metavar="SECONDS",
        help=f"{what}, looking every 30 seconds, until Ctrl-C",
    )


def check_watch(seconds: float) -> None:
    """Raise `LmsatError` for a time that is none to wait."""
    if not 0 < seconds <= _LONGEST_WATCH:
        raise LmsatError(f"--watch {seconds:g} is not a number of seconds from 0 to {_LONGEST_WATCH:,}: correct it")


def read_tree(args: argparse.Namespace) -> Results:
    """Return the results of the names that `add_tree` asks for, on all corpora.

    Raises `LmsatError` if there are none, for a table of the user's, and for a name that is not there.
    """
    check_trees(args.data)
    return _of_names(_read(args, args.data), args)


def check_trees(paths: Sequence[str]) -> None:
    """Raise `LmsatError` for a table of the user's, where result files are needed."""
    if tables := [path for path in paths if _is_csv(path)]:
        raise LmsatError(
            f"{tables[0]} is a table of your own, and no results: give the folder of results, or give the table to a "
            "command that takes one, such as lmsat saturation or lmsat fit"
        )


def read_results(args: argparse.Namespace) -> Results:
    """Return the results that `add_data` asks for.

    Raises:
        LmsatError: For a CSV, for folders without results, and for a corpus, a variant or a name that is not there.
    """
    for path in args.data:
        if _is_csv(path):
            raise LmsatError(f"{path} is a table: give the folder of results, whose arrays are read")
    return _chosen(_read(args, args.data), args)


def read_data(args: argparse.Namespace, data: Sequence[str] | None = None) -> Results | pd.DataFrame:
    """Return the results that `add_data` asks for, or the rows of ``.csv`` files.

    ``data`` are other paths than those of `add_data`. The corpora come in the order in which they were named.

    Raises:
        LmsatError: For paths that are neither, or both, and for a corpus, a variant or a name that is not there.
    """
    paths = args.data if data is None else data
    tables = [path for path in paths if _is_csv(path)]
    if not tables:
        return _chosen(_read(args, paths), args)
    if others := [path for path in paths if path not in tables]:
        raise LmsatError(f"{tables[0]} is a table and {others[0]} is not: give tables alone, or folders alone")
    from lmsat_plugin.analysis.input_tables import read_csvs

    return chosen_rows(read_csvs([user_path(path) for path in tables]), args)


def read_folder(args: argparse.Namespace, folder: str) -> Results:
    """Return the results in one folder that `add_choice` and `add_steps` ask for. Raises as `read_results`."""
    check_trees([folder])
    return _chosen(_read(args, [folder]), args)


def chosen_rows(table: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """Return the rows that the options choose. Raises `LmsatError` for a corpus, a variant or a name without rows."""
    from lmsat_plugin.analysis.input_tables import of_corpora, of_variant
    from lmsat_plugin.results.patterns import rows_matching

    for name, patterns in _patterns(args).items():
        if patterns is not None:
            table = rows_matching(table, name, patterns)
    if args.corpus is not None:
        table = of_corpora(table, args.corpus)
    return table if args.variant is None else of_variant(table, args.variant)


def _read(args: argparse.Namespace, paths: Sequence[str]) -> Results:
    from lmsat_plugin.results.tree import Results

    return Results.read(paths, step_pattern=args.step_pattern, tokens_per_step=args.tokens_per_step)


def _of_names(results: Results, args: argparse.Namespace) -> Results:
    patterns = _patterns(args)
    return results.select(patterns=patterns) if any(patterns.values()) else results


def _chosen(results: Results, args: argparse.Namespace) -> Results:
    results = _of_names(results, args)
    return results if args.corpus is None and args.variant is None else results.select(args.corpus, args.variant)


def _patterns(args: argparse.Namespace) -> dict[str, list[str] | None]:
    return {name: getattr(args, name) for name in args.chosen_names}


def _is_csv(path: str) -> bool:
    """Return whether a file is a table of the user's own, and not one that is read as results."""
    from lmsat_plugin.results.other_tools.tables import is_log

    return path.lower().endswith(".csv") and not is_log(user_path(path))

"""What analyses are given on the command line, and where their figures go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.figure import Figure


def add_data(parser: argparse.ArgumentParser, help_: str) -> None:
    """Add the data, and how to read it."""
    parser.add_argument("data", metavar="DATA", help=help_)
    parser.add_argument(
        "--corpus",
        action="append",
        metavar="NAME",
        help="only what was measured on this corpus, and what was measured on none; may be given several times",
    )
    add_steps(parser)


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Add where results say steps and tokens."""
    parser.add_argument(
        "--step-pattern", metavar="RE", help="where names state the step: (?P<step>...), (?P<tokens>...)"
    )
    parser.add_argument("--tokens-per-step", type=int, metavar="N", help="tokens in a training step")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the figure and JSON."""
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw into a file, whose name ends in .png, .svg or .pdf",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def read_data(args: argparse.Namespace, data: str | None = None) -> pd.DataFrame:
    """Return a tidy table of results from a folder or a result file, or the rows of a ``.csv`` file.

    ``data`` is what is to be read, by default what `add_data` has added. The corpora come in the order in which
    they were named.

    Raises:
        LmsatError: For what is neither, and for a corpus that is not there.
    """
    path = Path(args.data if data is None else data).expanduser()
    if path.suffix.lower() == ".csv":
        from lmsat_plugin.analysis.tables import read_csv

        table = read_csv(path)
    else:
        from lmsat_plugin.harness.results import load_results

        table = load_results(path, step_pattern=args.step_pattern, tokens_per_step=args.tokens_per_step)
    if args.corpus is None:
        return table
    from lmsat_plugin.analysis.tables import of_corpora

    return of_corpora(table, args.corpus, path)


def check_figure(args: argparse.Namespace) -> None:
    """Raise `LmsatError` for a figure that cannot be written, before anything is computed."""
    if args.figure is not None:
        from lmsat_plugin.report.style import check_suffix

        check_suffix(args.figure)


def write_figure_of(args: argparse.Namespace, draw: Callable[[], Figure]) -> None:
    """Draw and write the figure, if one is wanted."""
    if args.figure is not None:
        from lmsat_plugin.report.style import write_figure

        write_figure(draw(), args.figure)

"""``lmsat results``: the values in a tree of result files, as one table in any of six formats."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_tree, check_trees, chosen_rows
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.formats import plain, write_table
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import pandas as pd

_TITLES = {
    **{"model": "model", "variant": "variant", "revision": "revision", "step": "step"},
    **{"corpus": "corpus", "task": "task", "num_fewshot": "n-shot"},
    **{"metric": "metric", "filter": "filter", "value": "value", "stderr": "±"},
}
"""The columns for people, and their titles."""
_SHOWN_IF_DIFFERENT = ("variant", "corpus", "filter")


class ResultsCommand(AnsweringCommand):
    """Print the values in result files of any lm-eval, or of another tool, the newest of each, one a row."""

    name = "results"
    help = "the results in a folder, as one table"
    examples = (
        "lmsat results results/ --wide",
        "lmsat results results/ --task 'lmsat_*' --metric loss --format csv --output losses.csv",
    )
    has_figure = False

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the folder, and which values to keep."""
        add_tree(parser)
        parser.add_argument("--wide", action="store_true", help="a row a checkpoint, with a column a metric")
        parser.add_argument("--all", action="store_true", help="keep older measurements of the same value, too")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the table."""
        from lmsat_plugin.results.tree import load_results
        from lmsat_plugin.results.wide import wide_table

        if args.wide and args.all:
            raise LmsatError("--wide shows one value of each metric, and --all several: leave one of them out")
        check_trees(args.data)
        table = load_results(
            args.data, all_results=args.all, step_pattern=args.step_pattern, tokens_per_step=args.tokens_per_step
        )
        table = chosen_rows(table, args)
        if args.wide:
            table = wide_table(table)
        return Answer(data=table, parts=_parts(table, "checkpoints" if args.wide else "results"))

    def write(self, answer: Answer, form: str, *, raw: bool = False) -> bytes:
        """Return the content of a file in one of the formats."""
        import pandas as pd

        table: pd.DataFrame = answer.data
        shown = pd.DataFrame(_columns(table), dtype=object) if form in ("md", "latex") else None
        return write_table(table, form, raw=raw, shown=shown)


def _parts(table: pd.DataFrame, rows: str) -> Iterator[TextTable]:
    columns = {title: [_whole(cell) for cell in cells] for title, cells in _columns(table).items()}
    yield TextTable.of_columns(f"{len(table):,} {rows}", columns)


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns for people. The revision stands for an unknown step; some are shown only if they differ.

    So is the revision, where checkpoints of one model have one step: those of several runs, and averages.
    """
    if "metric" not in table:
        return _wide_columns(table)
    shown = table.assign(step=table.step.astype(object).where(table.step.notna(), table.revision))
    differ = {name: table[name].nunique(dropna=False) > 1 for name in _SHOWN_IF_DIFFERENT}
    revisions = shown.groupby(["model", "variant", "step"], dropna=False, sort=False).revision
    differ["revision"] = bool((revisions.nunique() > 1).any())
    return {title: plain(shown[name]) for name, title in _TITLES.items() if differ.get(name, True)}


def _wide_columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns of a wide table in which something stands. The task is named where metrics share a name."""
    shown = table.dropna(axis="columns", how="all")
    shorter = {name: name.partition("/")[2] or name for name in map(str, shown)}
    count = Counter(shorter.values())
    return {short if count[short] == 1 else name: plain(shown[name]) for name, short in shorter.items()}


def _whole(cell: Any) -> Any:
    """Return a whole number without decimals."""
    whole = isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15
    return int(cell) if whole else cell

"""``lmsat leaderboard``: models side by side, ranked; ties share a rank."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_tree, read_tree
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.formats import FORMATS, shown_table_of, write_table
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from lmsat_plugin.ranking.leaderboard import Leaderboard


class LeaderboardCommand(AnsweringCommand):
    """Rank models by the loss at their last checkpoints, beside what else is known of these.

    A rank is 1 + the number of models that are significantly better, and ties share it. All pairs of models are tested,
    document by document where the losses by document are kept, and corrected by Holm at 5 %. Where tokens differ,
    models are ranked by bits per byte; without lmsat_loss, by downstream scores. Other columns, as far as results allow
    them: the least loss, the verdict on saturation, anisotropy, the LM head's spectrum, the gap to the scaling law of
    these models, the mean downstream score above chance, and how far it lies above the one that the loss predicts.
    """

    name = "leaderboard"
    help = "models side by side, ranked; ties share a rank"
    examples = (
        "lmsat leaderboard results/",
        "lmsat leaderboard results/ --corpus pile --format html --output leaderboard.html",
    )
    has_figure = False
    formats = (*FORMATS, "html")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the folder and the Hub."""
        add_tree(parser)
        parser.add_argument(
            "--hub", type=Path, metavar="FOLDER", help="write a data set for the Hub: card, tables, results"
        )
        parser.add_argument("--push", metavar="ORG/NAME", help="upload that data set to the Hub")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Write and upload the data set if asked to, and return the leaderboard."""
        if args.push is not None and args.hub is None:
            raise LmsatError(f"--push {args.push} needs a folder to upload: add --hub FOLDER")
        from lmsat_plugin.analysis.analyses import Analyses
        from lmsat_plugin.ranking.leaderboard import leaderboard_of

        analyses = Analyses.of(read_tree(args), args.corpus, args.variant)
        board = leaderboard_of(analyses)
        if args.hub is not None:
            from lmsat_plugin.ranking.hub_folder import push, write_hub_folder

            write_hub_folder(board, analyses, args.hub)
            if args.push is not None:
                push(args.hub, args.push)
        return Answer(data=board, parts=[_table(board), *board.notes])

    def write(self, answer: Answer, form: str, *, raw: bool = False) -> bytes:
        """Return the content of a file in one of the formats."""
        import pandas as pd

        from lmsat_plugin.ranking.formats import FORMATS as WRITERS
        from lmsat_plugin.ranking.formats import as_csv

        board: Leaderboard = answer.data
        if form in ("latex", "parquet"):
            shown = shown_table_of(answer)
            return write_table(pd.DataFrame(board.rows).convert_dtypes(), form, shown=shown)
        return (as_csv(board, raw=raw) if form == "csv" else WRITERS[form](board)).encode("utf-8")


def _table(board: Leaderboard) -> TextTable:
    from lmsat_plugin.ranking.formats import cells

    # Whole numbers stay numbers, so that they are aligned to the right.
    rows = [
        [
            row[column.name] if isinstance(row[column.name], int) and not cell.startswith("~") else cell
            for column, cell in zip(board.columns, cells(board, row), strict=True)
        ]
        for row in board.rows
    ]
    return TextTable("Leaderboard", [column.title_with_unit for column in board.columns], rows)

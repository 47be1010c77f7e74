"""``lmsat leaderboard``: models side by side, ranked; ties share a rank."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.arguments import add_tree, read_tree
from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.tables import print_table
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import argparse

    from lmsat_plugin.ranking.leaderboard import Leaderboard

_FORMATS = ("table", "md", "csv", "html", "json")


class LeaderboardCommand(Command):
    """Rank models by the loss at their last checkpoints, beside what else is known of these.

    Ties share a rank: a rank is 1 + the number of models that are significantly better,
    by tests of all pairs, document by document where the losses by document are kept, corrected by Holm at 5 %. By
    bits per byte where tokens differ, by downstream scores where there is no lmsat_loss. Beside it, as far as results
    hold it: the least loss, the verdict on saturation, anisotropy, the LM head's spectrum, the gap to the scaling law
    of these models, the mean downstream score above chance, and how far it lies above what the loss predicts.
    """

    name = "leaderboard"
    help = "models side by side, ranked; ties share a rank"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the folder, the formats and the Hub."""
        add_tree(parser)
        parser.add_argument(
            "--format",
            choices=_FORMATS,
            default="table",
            help="how the leaderboard is written (default: table)",
        )
        parser.add_argument("--output", type=Path, metavar="FILE", help="write to a file")
        parser.add_argument(
            "--hub", type=Path, metavar="FOLDER", help="write a data set for the Hub: card, tables, results"
        )
        parser.add_argument("--push", metavar="ORG/NAME", help="upload that data set to the Hub")

    def run(self, args: argparse.Namespace) -> None:
        """Print or write the leaderboard."""
        if args.format == "table" and args.output is not None:
            raise LmsatError(
                f"--output {args.output} takes no table for people: add --format html, md, csv or json"
            )
        if args.push is not None and args.hub is None:
            raise LmsatError(f"--push {args.push} needs a folder to upload: add --hub FOLDER")
        from lmsat_plugin.analysis.analyses import Analyses
        from lmsat_plugin.files import write_atomically
        from lmsat_plugin.ranking.formats import FORMATS
        from lmsat_plugin.ranking.leaderboard import leaderboard_of

        analyses = Analyses.of(read_tree(args, args.folder), args.corpus, args.variant)
        board = leaderboard_of(analyses)
        if args.hub is not None:
            from lmsat_plugin.ranking.hub_folder import push, write_hub_folder

            write_hub_folder(board, analyses, args.hub)
            if args.push is not None:
                push(args.hub, args.push)
        if args.format == "table":
            _print(board)
        elif args.output is not None:
            write_atomically(args.output, FORMATS[args.format](board).encode("utf-8"))
        else:
            sys.stdout.write(FORMATS[args.format](board))


def _print(board: Leaderboard) -> None:
    from lmsat_plugin.ranking.formats import cells, title

    # Numbers stay numbers, so that they stand to the right.
    rows = [
        [
            row[column.name] if isinstance(row[column.name], int) else cell
            for column, cell in zip(board.columns, cells(board, row), strict=True)
        ]
        for row in board.rows
    ]
    print_table("Leaderboard", [title(column) for column in board.columns], rows)
    for note in board.notes:
        print(note)

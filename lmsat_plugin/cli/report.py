"""``lmsat report``: one page with all that a folder of results says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.data import add_steps

if TYPE_CHECKING:
    import argparse


class Report(Command):
    """Write a page that needs no network: the verdicts in words, then figures, tables, and where each value is from.

    Beside it lie the figures as SVG, PNG and PDF, and the tables as CSV. What the results do not allow is said with
    the way to get it.
    """

    name = "report"
    help = "one page with all that the results say"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the results, the corpus, and where to write."""
        parser.add_argument(
            "folder", type=Path, metavar="DIR", help="a folder with result files, or one file"
        )
        parser.add_argument(
            "--corpus",
            metavar="NAME",
            help="only what was measured on this corpus, and what was measured on none",
        )
        add_steps(parser)
        parser.add_argument(
            "--output", type=Path, metavar="FOLDER", help="where the page goes (default: DIR/report)"
        )

    def run(self, args: argparse.Namespace) -> None:
        """Write the report; print the verdicts and its path."""
        from lmsat_plugin.report.collected import Collected
        from lmsat_plugin.report.page import write_report
        from lmsat_plugin.report.verdicts import verdicts_of

        root = args.folder.expanduser()
        collected = Collected.of(root, args.corpus, args.step_pattern, args.tokens_per_step)
        beside = root.parent if root.is_file() else root
        page = write_report(collected, args.output.expanduser() if args.output else beside / "report")
        for verdicts in verdicts_of(collected):
            print(verdicts)
        print(page)

"""``lmsat report``: one page with the verdicts, figures and tables of a folder of results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lmsat_plugin.cli.arguments import add_tree, read_tree
from lmsat_plugin.cli.command import Command
from lmsat_plugin.files import user_path
from lmsat_plugin.outside_text import show


class ReportCommand(Command):
    """Write a page that needs no network: the verdicts in words, then figures, tables, and the file of each value.

    Beside it lie the figures as SVG, PNG and PDF, and the tables as CSV. The page lists the analyses that the results
    do not allow, each with the way to get it.
    """

    name = "report"
    help = "one page with verdicts, figures and tables"
    examples = ("lmsat report results/", "lmsat report results/ --corpus pile --output page")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the results, and where the page goes."""
        add_tree(parser)
        parser.add_argument(
            "--output",
            type=Path,
            metavar="FOLDER",
            help="where the page goes (default: DIR/report; of several DIR, report)",
        )

    def run(self, args: argparse.Namespace) -> None:
        """Write the report; print the verdicts and its path."""
        from lmsat_plugin.analysis.analyses import Analyses
        from lmsat_plugin.page.report import write_report
        from lmsat_plugin.page.verdicts import verdicts_of

        results = read_tree(args)
        analyses = Analyses.of(results, args.corpus, args.variant)
        page = write_report(analyses, user_path(args.output) if args.output else _folder_of(args.data))
        for verdicts in verdicts_of(analyses):
            show(verdicts)
        show(page)


def _folder_of(data: Sequence[str]) -> Path:
    """Return the folder of the page: in the one tree that is read, else here."""
    if len(data) > 1:
        return Path("report")
    path = user_path(data[0])
    return (path.parent if path.is_file() else path) / "report"

"""``lmsat report``: one page with the verdicts, figures and tables of a folder of results."""

from __future__ import annotations

import argparse
import json
import time
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_tree, add_watch, check_watch, read_tree
from lmsat_plugin.cli.command import Command
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import user_path
from lmsat_plugin.outside_text import show

if TYPE_CHECKING:
    from lmsat_plugin.analysis.analyses import Analyses


class ReportCommand(Command):
    """Write a page that needs no network: the verdicts in words, then figures, tables, and the file of each value.

    Beside it lie the figures as SVG, PNG and PDF, and the tables as CSV. The page lists the analyses that the results
    do not allow, each with the way to get it.

    With --watch the page is written anew whenever a result has come, and an open page shows it by itself, in the view
    that was chosen.
    """

    name = "report"
    help = "one page with verdicts, figures and tables"
    examples = (
        "lmsat report results/",
        "lmsat report results/ --corpus pile --output page",
        "lmsat report results/ --watch --open",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the results, where the page goes, and how long it is kept up to date."""
        add_tree(parser)
        parser.add_argument(
            "--output",
            type=Path,
            metavar="FOLDER",
            help="where the page goes (default: DIR/report; of several DIR, report)",
        )
        parser.add_argument("--open", action="store_true", help="open the page in the browser")
        parser.add_argument("--json", action="store_true", help="print the verdicts and what was written as JSON")
        add_watch(parser, "write the page anew as results come")
        parser.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)

    def run(self, args: argparse.Namespace) -> None:
        """Write the report; print the verdicts and its path."""
        if args.watch is not None:
            check_watch(args.watch)
            if args.json:
                raise LmsatError("--json prints once, and --watch writes the page again and again: leave one out")
            _watch(args)
            return
        analyses, page = _write(args)
        if args.json:
            print(json.dumps(_written(analyses, page), indent=2))
        else:
            from lmsat_plugin.page.verdicts import verdicts_of

            for verdicts in verdicts_of(analyses):
                show(verdicts)
            show(page)
        if args.open:
            _open(page)


def _folder(args: argparse.Namespace) -> Path:
    """Return the folder of the page: in the one tree that is read, else here."""
    if args.output:
        return user_path(args.output)
    if len(args.data) > 1:
        return Path("report")
    path = user_path(args.data[0])
    return (path.parent if path.is_file() else path) / "report"


def _write(args: argparse.Namespace) -> tuple[Analyses, Path]:
    from lmsat_plugin.analysis.analyses import Analyses
    from lmsat_plugin.page.report import write_report

    analyses = Analyses.of(read_tree(args), args.corpus, args.variant)
    return analyses, write_report(analyses, _folder(args), reload_every=args.watch)


def _written(analyses: Analyses, page: Path) -> dict[str, Any]:
    """Return the page, the files beside it, and the verdicts, as plain data."""
    from lmsat_plugin.page.verdicts import verdicts_of

    beside = sorted(file for file in page.parent.rglob("*") if file.is_file() and file != page)
    return {
        "page": str(page),
        "files": [file.relative_to(page.parent).as_posix() for file in beside],
        "values": len(analyses.table),
        "verdicts": [asdict(verdicts) for verdicts in verdicts_of(analyses)],
    }


def _open(page: Path) -> None:
    if not webbrowser.open(page.absolute().as_uri()):
        show(f"no browser is known here: open {page}")


def _watch(args: argparse.Namespace) -> None:
    """Keep the page up to date until Ctrl-C, or until the process that started this one has ended."""
    from lmsat_plugin.sweeps.interrupts import Interrupts, end_with_parent

    live = _LivePage(args)
    with Interrupts().handled():
        try:
            if args.with_parent:
                end_with_parent()
            while True:
                live.update()
                time.sleep(args.watch)
        except KeyboardInterrupt:
            live.end()
            raise


class _LivePage:
    """The page of results that still come."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._page: Path | None = None
        # Equal to none that are found: a folder without results is worth a word, too.
        self._results: object = ()
        self._said = ""

    def update(self) -> None:
        """Write the page anew if the results have changed."""
        results = _results(self._args)
        if results == self._results:
            return
        try:
            analyses, page = _write(self._args)
        except LmsatError as error:
            # The first results may still have to come.
            said = f"Waiting: {error}"
        else:
            said = f"{page}: {len(analyses.table):,} values"
            if self._args.open and self._page is None:
                _open(page)
            self._page = page
        if said != self._said:
            show(said)
        self._results, self._said = results, said

    def end(self) -> None:
        """Write the page with what has come last; it no longer loads itself again."""
        from lmsat_plugin.page.report import end_reloading

        self._args.watch = None
        self.update()
        if self._page is not None:
            end_reloading(self._page)


def _results(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the files that may be results, with what tells whether they have changed; None without a folder."""
    from lmsat_plugin.results.tree_files import tree_files

    own = f"{_folder(args)}/"
    try:
        found = [file for folder in args.data for file in tree_files(user_path(folder))]
    except LmsatError:
        return None
    return {file.path: file.stamp for file in found if not file.path.startswith(own)}

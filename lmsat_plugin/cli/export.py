"""``lmsat export``: results as records of Every Eval Ever."""

from __future__ import annotations

import argparse
from pathlib import Path

from lmsat_plugin.cli.arguments import add_tree, read_tree
from lmsat_plugin.cli.command import Command
from lmsat_plugin.outside_text import show


class ExportCommand(Command):
    """Write results of any lm-eval as records of Every Eval Ever (schema 0.3.0), one for each result file.

    The files are FOLDER/data/lmsat/DEVELOPER/MODEL/UUID.json, in the layout of that project's data. What results do
    not state, such as who evaluated the model, is "unknown" in the records: fill it in before you publish them.
    """

    name = "export"
    help = "results as records of Every Eval Ever"
    examples = (
        "lmsat export results/ --output records",
        "lmsat export results/results.json --output records --tokens-per-step 2097152",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the folders."""
        add_tree(parser, names=("model",))
        parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the records go")

    def run(self, args: argparse.Namespace) -> None:
        """Write the records."""
        from lmsat_plugin.results.every_eval_ever import export

        written = export(read_tree(args), args.output)
        show(f"{len(written):,} records in {args.output}")

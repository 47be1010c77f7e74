"""What a subcommand is, and the kind that answers a question: in tables for people, or in a format for programs."""

from __future__ import annotations

import argparse
import json
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.formats import BINARY, FORMATS, shown_table_of, table_of, write_table
from lmsat_plugin.cli.tables import print_parts
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import write_atomically
from lmsat_plugin.outside_text import printable


class Command(ABC):
    """One subcommand. The class' docstring is its description."""

    name: ClassVar[str]
    help: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    """At least two, as a user types them."""
    passes_on: ClassVar[bool] = False
    """Whether it takes arguments that the parser does not know, as ``args.rest``."""
    repeats_warnings: ClassVar[bool] = False
    """Whether a warning that comes again is news, since the command measures for hours."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        return

    @abstractmethod
    def run(self, args: argparse.Namespace) -> int | None:
        """Run it, and return the exit code. Raises `LmsatError` for bad input."""


class AnsweringCommand(Command):
    """A subcommand that answers in tables for people or in a format for programs, and may draw a figure."""

    has_figure: ClassVar[bool] = True
    has_output: ClassVar[bool] = True
    """Whether ``--output`` is where the answer goes."""
    formats: ClassVar[tuple[str, ...]] = FORMATS
    """All formats but the table."""
    json_indent: ClassVar[int | None] = 2

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments, except those of the output."""
        return

    @abstractmethod
    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the answer. Raises `LmsatError` for bad input."""

    def write(self, answer: Answer, form: str, *, raw: bool = False) -> bytes:
        """Return the content of a file in one of the formats; ``raw`` leaves text as it is in CSV."""
        if form == "json":
            return (json.dumps(answer.data, indent=self.json_indent, allow_nan=False) + "\n").encode()
        if form in ("md", "latex"):
            return write_table(shown_table_of(answer), form)
        return write_table(table_of(answer), form, raw=raw)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        self.add_options(parser)
        if self.has_figure:
            parser.add_argument(
                "--figure", type=Path, metavar="FILE", help="draw into a file, whose name ends in .png, .svg or .pdf"
            )
        parser.add_argument(
            "--format",
            choices=("table", *self.formats),
            default="table",
            help="how the answer is written (default: table)",
        )
        parser.add_argument(
            "--json", dest="format", action="store_const", const="json", help="print JSON, as --format json"
        )
        if self.has_output:
            parser.add_argument("--output", type=Path, metavar="FILE", help="write to a file")
        parser.add_argument(
            "--raw", action="store_true", help="csv: leave text as it is that a spreadsheet takes for a formula"
        )

    def run(self, args: argparse.Namespace) -> int | None:
        """Write the figure, and print the answer or write it to a file."""
        form, output = args.format, self._output(args)
        if form == "table" and output is not None:
            *others, last = self.formats
            raise LmsatError(f"--output {output} takes no table for people: add --format {', '.join(others)} or {last}")
        if form in BINARY and output is None:
            raise LmsatError(f"--format {form} is not for a terminal: name a file with --output FILE")
        figure: Path | None = getattr(args, "figure", None)
        if figure is None:
            answer = self.answer(args)
        else:
            from lmsat_plugin.figures import plot, write_figure
            from lmsat_plugin.figures.style import check_suffix

            # A wrong name ends the command before anything is computed.
            check_suffix(figure)
            answer = self.answer(args)
            write_figure(plot(answer.result, **answer.options), figure)
        return self.present(args, answer)

    def _output(self, args: argparse.Namespace) -> Path | None:
        return args.output if self.has_output else None

    def present(self, args: argparse.Namespace, answer: Answer) -> int | None:
        """Print the answer, or write it to a file; return the exit code."""
        if args.format == "table":
            print_parts(answer.parts)
        elif (output := self._output(args)) is not None:
            write_atomically(output, self.write(answer, args.format, raw=args.raw))
        else:
            text = self.write(answer, args.format, raw=args.raw).decode("utf-8")
            sys.stdout.write(printable(text, keep="\n\t") if sys.stdout.isatty() else text)
        return None

"""What a subcommand is, and the two kinds that answer a question: in tables or JSON, or in one of many formats."""

from __future__ import annotations

import argparse
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lmsat_plugin.cli.tables import TextTable, print_parts
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


@dataclass(frozen=True)
class Answer:
    """The answer of a command."""

    data: Any
    """Plain data, as ``--json`` prints it; or, of a `FormattingCommand`, what it writes in its formats."""
    parts: Iterable[TextTable | str]
    """Tables and sentences for people, in order."""
    result: Any = None
    """The result that ``--figure`` draws, see `lmsat_plugin.figures.plot`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `plot`."""


class AnsweringCommand(Command):
    """A subcommand that answers in tables for people or in JSON, and may draw a figure."""

    has_figure: ClassVar[bool] = True
    json_indent: ClassVar[int | None] = 2

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments, except those of the output."""
        return

    @abstractmethod
    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the answer. Raises `LmsatError` for bad input."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        self.add_options(parser)
        if self.has_figure:
            parser.add_argument(
                "--figure", type=Path, metavar="FILE", help="draw into a file, whose name ends in .png, .svg or .pdf"
            )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> None:
        """Write the figure, and print the answer."""
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
        if args.json:
            print(json.dumps(answer.data, indent=self.json_indent, allow_nan=False))
        else:
            print_parts(answer.parts)


class FormattingCommand(AnsweringCommand):
    """A subcommand that answers in a table for people, or in other formats, on the terminal or in a file."""

    formats: ClassVar[tuple[str, ...]]
    """All formats but the table."""
    binary_formats: ClassVar[tuple[str, ...]] = ()
    """Those of them that a terminal cannot show."""

    @abstractmethod
    def write(self, data: Any, form: str, *, raw: bool = False) -> bytes:
        """Return the content of a file in one of the formats; ``raw`` leaves text as it is in CSV."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        self.add_options(parser)
        parser.add_argument(
            "--format",
            choices=("table", *self.formats),
            default="table",
            help="how the table is written (default: table)",
        )
        parser.add_argument("--output", type=Path, metavar="FILE", help="write to a file")
        parser.add_argument(
            "--raw", action="store_true", help="csv: leave text as it is that a spreadsheet takes for a formula"
        )

    def run(self, args: argparse.Namespace) -> None:
        """Print the answer, or write it to a file."""
        form, output = args.format, args.output
        if form == "table" and output is not None:
            *others, last = self.formats
            raise LmsatError(f"--output {output} takes no table for people: add --format {', '.join(others)} or {last}")
        if form in self.binary_formats and output is None:
            raise LmsatError(f"--format {form} is not for a terminal: name a file with --output FILE")
        answer = self.answer(args)
        if form == "table":
            print_parts(answer.parts)
        elif output is not None:
            write_atomically(output, self.write(answer.data, form, raw=args.raw))
        else:
            text = self.write(answer.data, form, raw=args.raw).decode("utf-8")
            sys.stdout.write(printable(text, keep="\n\t") if sys.stdout.isatty() else text)
